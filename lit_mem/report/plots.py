"""The plots of a page: each the drawing, a caption, and its data as a table and for the page's script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lit_mem.functional.histogram import Histogram
from lit_mem.functional.numbers import NOT_MEASURED, shown
from lit_mem.functional.plain_text import printable
from lit_mem.plots.curves import Line, curves_plot
from lit_mem.plots.histogram import histograms_plot
from lit_mem.plots.output import Series, svg
from lit_mem.plots.roc import roc_plot
from lit_mem.plots.scatter import drawable, scatter_plot
from lit_mem.plots.trade_off import POINTS, trade_off_plot
from lit_mem.report.intervals import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS: Final = 200
_APART: Final = 3.0


Texts = Mapping[str, Sequence[Sequence[str]]]
"""For each series of a plot what each of its points shows: x, y, then perhaps the interval, then perhaps a name."""


@dataclass
class Plot:
    """A plot of a page.

    Attributes:
        slug: its id on the page.
        title: above it.
        svg: the drawing.
        series: entries of its legend.
        points: for the script: `names` of what each point shows, and of each series its name and its points, each the
            place in the drawing and the texts.
        caption: what to see in it.
        header: of the table of its data.
        rows: of that table, as text.
        left_out: rows that the table does not show.
    """

    slug: str
    title: str
    svg: str
    series: list[Series]
    points: dict[str, Any]
    caption: str
    header: list[str]
    rows: list[list[str]]
    left_out: int = 0


def _plot(
    slug: str,
    title: str,
    caption: str,
    figure: Figure,
    header: Sequence[str],
    rows: Sequence[list[str]],
    names: Sequence[str],
    texts: Texts,
    apart: float = 0.0,
) -> Plot:
    """A plot of a page.

    Args:
        slug: id on the page.
        title: above it.
        caption: what to see in it.
        figure: matplotlib's, to draw.
        header: of the table of its data.
        rows: of that table.
        names: of x, y and the interval.
        texts: what the points show.
        apart: a point that is nearer than this to the one before shows nothing, in points of 1/72 inch.
    """
    drawing = svg(figure, slug, title, caption)
    series = [one._replace(name=printable(one.name)) for one in drawing.series]
    found = [
        {"name": printable(one.name), "points": _points(one.points, texts.get(one.name, ()), apart)}
        for one in drawing.series
    ]
    kept, left_out = list(rows[:_MOST_ROWS]), max(0, len(rows) - _MOST_ROWS)
    points = {"names": list(names), "series": found}
    return Plot(slug, title, drawing.svg, series, points, caption, list(header), kept, left_out)


def _points(places: Sequence[tuple[float, float]], texts: Sequence[Sequence[str]], apart: float) -> list[list[Any]]:
    """The points that are drawn, each once, with what they show."""
    kept: dict[tuple[Any, ...], None] = {}
    last = (-math.inf, -math.inf)
    for place, shown_there in zip(places, texts, strict=True) if texts else ():
        if all(map(math.isfinite, place)) and math.dist(place, last) >= apart:
            kept[(*place, *shown_there)] = None
            last = place
    return [list(one) for one in kept]


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
    header, texts, rows = [x_label], dict[str, list[list[str]]](), list[list[str]]()
    for line in kept:
        texts[line.label] = [[f"{x:g}", shown(y)] for x, y in zip(line.x, line.y, strict=True)]
        header.append(line.label)
        if line.low is not None and line.high is not None:
            header.append(f"{line.label}, 95 % interval")
            for text, low, high in zip(texts[line.label], line.low, line.high, strict=True):
                text.append(interval(low, high))
    for x in sorted({x for line in kept for x in line.x}):
        row = [f"{x:g}"]
        for line in kept:
            absent = [NOT_MEASURED, ""][: len(texts[line.label][0]) - 1]
            row += texts[line.label][list(line.x).index(x)][1:] if x in line.x else absent
        rows.append(row)
    return _plot(slug, title, caption, drawing, header, rows, [x_label, y_label, "95 % interval"], texts)


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
    texts = {POINTS: [[shown(x), shown(y), printable(label)] for label, x, y in kept]}
    return _plot(slug, title, caption, drawing, ["", x_label, y_label], rows, [x_label, y_label], texts)


def roc(slug: str, attacks: Sequence[Mapping[str, Any]]) -> Plot:
    """ROC curves of all attacks, the first of which is the one that the run is judged by."""
    n = max(one["n_heldout"] for one in attacks)
    curves_of = {one["name"]: (one["roc"]["fpr"], one["roc"]["tpr"]) for one in attacks}
    title = "ROC of the attacks, log axes"
    caption = (
        "The share of members that an attack finds (upwards) at each share of false alarms (to the right). The left "
        f"end matters most: members found with almost no false alarm. With {n} held-out texts no rate under "
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
    header = ["attack", "AUROC", "95 % interval", *found_at]
    texts = {name: [[shown(x), shown(y)] for x, y in zip(*rates, strict=True)] for name, rates in curves_of.items()}
    names = ["false-positive rate", "true-positive rate"]
    return _plot(slug, title, caption, drawing, header, rows, names, texts, apart=_APART)


def histogram(slug: str, one: Mapping[str, Any]) -> Plot:
    """The distribution of an attack's scores in both sets."""
    bins = Histogram(**one["histogram"])
    caption = (
        f"{one['n_members']} members and {one['n_heldout']} held-out texts; higher is more member-like. Where the two "
        "overlap, the attack cannot separate them."
    )
    rows = [
        [f"{shown(low)} to {shown(high)}", str(m), str(h)]
        for low, high, m, h in zip(bins.edges, bins.edges[1:], bins.members, bins.heldout, strict=False)
    ]
    title = f"Scores of the {one['name']} attack"
    drawing = histograms_plot({one["name"]: bins})
    sets = [(f"members ({sum(bins.members)})", 1), (f"held-out texts ({sum(bins.heldout)})", 2)]
    texts = {name: [[row[0], row[column]] for row in rows] for name, column in sets}
    header = ["score", "members", "held-out texts"]
    return _plot(slug, title, caption, drawing, header, rows, ["score", "texts"], texts)


def scatter(slug: str, one: Mapping[str, Any], title: str) -> Plot:
    """Perplexity against an extraction measure, a point an example."""
    x, y, member, rho = one["perplexity"], one["value"], one["member"], one["spearman"]
    caption = (
        f"Does the model reproduce the texts of low perplexity? Rank correlation (Spearman) over members: {shown(rho)}."
    )
    rows = [["member" if m else "held-out", shown(px), shown(py)] for px, py, m in zip(x, y, member, strict=True)]
    drawing = scatter_plot(x, member, {title: y}, {title: rho})
    texts = {
        name: [row[1:] for row, m, px, py in zip(rows, member, x, y, strict=True) if m == side and drawable(px, py)]
        for name, side in (("members", True), ("held-out texts", False))
    }
    header = ["set", "perplexity", title]
    return _plot(slug, f"Perplexity against {title}", caption, drawing, header, rows, header[1:], texts)
