"""The plots of a page: each the drawing, what it shows in words, and its data as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lit_mem.functional.histogram import Histogram
from lit_mem.functional.numbers import shown
from lit_mem.plots.curves import Line, curves_plot
from lit_mem.plots.histogram import histograms_plot
from lit_mem.plots.output import svg
from lit_mem.plots.roc import roc_plot
from lit_mem.plots.scatter import scatter_plot
from lit_mem.plots.trade_off import trade_off_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS: Final = 200


@dataclass
class Plot:
    """A plot of a page.

    Attributes:
        slug: its id on the page.
        title: above it.
        svg: the drawing.
        caption: what to see in it.
        header: of the table of its data.
        rows: of that table, as text.
        left_out: rows that the table does not show.
    """

    slug: str
    title: str
    svg: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    left_out: int = 0


def _plot(
    slug: str, title: str, caption: str, drawing: Figure, header: Sequence[str], rows: Sequence[list[str]]
) -> Plot:
    kept, left_out = list(rows[:_MOST_ROWS]), max(0, len(rows) - _MOST_ROWS)
    return Plot(slug, title, svg(drawing, slug, title, caption), caption, list(header), kept, left_out)


def curves(
    slug: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    limits: Sequence[float] = (),
    guess: float | None = None,
    from_zero: bool = False,
) -> Plot | None:
    """Curves over the same axis; None where nothing was measured.

    Args:
        slug: id on the page.
        title: above it.
        caption: what to see in it.
        lines: the curves.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        limits: as for `curves_plot`.
        guess: likewise.
        from_zero: likewise.
    """
    kept = [line for line in lines if line.measured]
    if not kept:
        return None
    drawing = curves_plot({y_label: kept}, x_label, limits, guess, from_zero)
    header = [x_label]
    for line in kept:
        header += [line.label] + ([f"{line.label}, 95 % interval"] if line.low is not None else [])
    rows = []
    for x in sorted({x for line in kept for x in line.x}):
        row = [f"{x:g}"]
        for line in kept:
            at = list(line.x).index(x) if x in line.x else None
            row.append(shown(None if at is None else line.y[at]))
            if line.low is not None and line.high is not None:
                row.append(interval(*((None, None) if at is None else (line.low[at], line.high[at]))))
        rows.append(row)
    return _plot(slug, title, caption, drawing, header, rows)


def interval(low: float | None, high: float | None) -> str:
    """Both ends, for a cell; empty where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{shown(low)} to {shown(high)}"


def trade_off(
    slug: str,
    title: str,
    caption: str,
    points: Sequence[tuple[str, float | None, float | None]],
    x_label: str,
    y_label: str,
    limit: float | None = None,
    joined: bool = True,
    front: Sequence[tuple[float, float]] = (),
) -> Plot | None:
    """Utility against memorization, a labelled point an epoch or a configuration; None without points.

    Args:
        slug: id on the page.
        title: above it.
        caption: what to see in it.
        points: label, held-out perplexity, memorization.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        limit: on memorization.
        joined: draw a path in the order given.
        front: points of the front, which a line joins.
    """
    kept = [
        (label, float(x), float(y))
        for label, x, y in points
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    if not kept:
        return None
    drawing = trade_off_plot(kept, x_label, y_label, limit, joined, front)
    rows = [[p[0], shown(p[1]), shown(p[2])] for p in points]
    return _plot(slug, title, caption, drawing, ["", x_label, y_label], rows)


def roc(slug: str, attacks: Sequence[Mapping[str, Any]]) -> Plot:
    """ROC curves of all attacks, the first of which is the one that the run is judged by."""
    n = max(one["n_heldout"] for one in attacks)
    curves_of = {one["name"]: (one["roc"]["fpr"], one["roc"]["tpr"]) for one in attacks}
    title = "ROC of the attacks, log axes"
    caption = (
        "How many members an attacker finds (upwards) for how many false alarms (to the right). The left end matters "
        f"most: members found with hardly any false alarm. With {n} held-out texts no rate under "
        f"{1 / max(n, 10):.2g} can be distinguished from 0."
    )
    drawing = roc_plot(curves_of, n, main=attacks[0]["name"])
    rates = [rate for rate in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5) if rate >= 1 / n - 1e-12]
    found_at = [f"members found at {100 * rate:g} % false alarms" for rate in rates]
    rows = []
    for one in attacks:
        pairs = list(zip(one["roc"]["fpr"], one["roc"]["tpr"], strict=True))
        found = [max(tpr for fpr, tpr in pairs if fpr <= rate + 1e-12) for rate in rates]
        ends = interval(one["auroc_low"], one["auroc_high"])
        rows.append([one["name"], shown(one["auroc"]), ends, *map(shown, found)])
    return _plot(slug, title, caption, drawing, ["attack", "AUROC", "95 % interval", *found_at], rows)


def histogram(slug: str, one: Mapping[str, Any]) -> Plot:
    """How an attack's scores are spread in both sets."""
    bins = Histogram(**one["histogram"])
    caption = (
        f"{one['n_members']} members and {one['n_heldout']} held-out texts; higher is more member-like. Where the two "
        "overlap, the attack cannot separate them."
    )
    rows = [
        [f"{shown(low)} to {shown(high)}", str(m), str(h)]
        for low, high, m, h in zip(bins.edges, bins.edges[1:], bins.members, bins.heldout, strict=False)
    ]
    header = ["score", "members", "held-out texts"]
    return _plot(
        slug, f"Scores of the {one['name']} attack", caption, histograms_plot({one["name"]: bins}), header, rows
    )


def scatter(slug: str, one: Mapping[str, Any], title: str) -> Plot:
    """Perplexity against an extraction measure, a point an example."""
    x, y, member, rho = one["perplexity"], one["value"], one["member"], one["spearman"]
    caption = (
        f"Does the model write the texts that it finds likely? Rank correlation (Spearman) over members: {shown(rho)}."
    )
    rows = [["member" if m else "held-out", shown(px), shown(py)] for px, py, m in zip(x, y, member, strict=True)]
    return _plot(
        slug,
        f"Perplexity against {title}",
        caption,
        scatter_plot(x, member, {title: y}, {title: rho}),
        ["set", "perplexity", title],
        rows,
    )
