"""The figures of a report: each a picture, what it says in words, and its data as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lit_mem.functional.numbers import shown
from lit_mem.report.drawing import INK, LIMIT, SERIES, SOFT, drawn, svg

_MOST_ROWS: Final = 200
_WIDE: Final = 20


@dataclass
class Plot:
    """One figure of a page.

    Attributes:
        slug: its id on the page.
        title: above it.
        svg: the picture.
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


@dataclass
class Line:
    """A curve.

    Attributes:
        label: in the legend and over its column.
        x: of its points.
        y: likewise; NaN or None leaves a gap.
        low: lower ends of the interval of each point, if there is one.
        high: upper ends.
        dashed: as what is only compared with is drawn.
        colour: of `drawing.SERIES`; None: the next one.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dashed: bool = False
    colour: str | None = None


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def curves(
    slug: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    limits: Sequence[float] = (),
    guess: float | None = None,
    log_x: bool = False,
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
        limits: drawn as lines that are not to be passed.
        guess: value of an attack that knows nothing.
        log_x: as for ranks, which double.
        from_zero: show the whole of a share, so that noise in it does not look like a trend.
    """
    from matplotlib.ticker import MaxNLocator

    kept = [line for line in lines if any(math.isfinite(value) for value in _floats(line.y))]
    if not kept:
        return None
    xs = sorted({x for line in kept for x in line.x})
    with drawn() as (figure, axes):
        if guess is not None:
            axes.axhline(guess, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label=f"guessing ({guess:g})")
        for limit in limits:
            axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)), label=f"limit ({limit:g})")
        for i, line in enumerate(kept):
            colour = line.colour or SERIES[i % len(SERIES)]
            style: Any = (0, (3, 2)) if line.dashed or i >= len(SERIES) else "-"
            many = len(kept) > 3 and i > 0
            axes.plot(
                line.x, _floats(line.y), color=colour, label=line.label, linestyle=style, marker="o",
                markersize=2.5 if many else 4, linewidth=1.2 if many else 2, zorder=2 if many else 3,
            )  # fmt: skip
            if line.low is not None and line.high is not None and not many:
                axes.fill_between(line.x, _floats(line.low), _floats(line.high), color=colour, alpha=0.16, linewidth=0)
        axes.set(xlabel=x_label, ylabel=y_label)
        if from_zero:
            axes.set_ylim(0, max(1.15 * axes.dataLim.y1, 0.01))
        if log_x and xs[0] > 0:
            axes.set_xscale("log", base=2)
            axes.set_xticks(xs, labels=[f"{x:g}" for x in xs])
        elif all(float(x).is_integer() for x in xs):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        n = len(axes.get_legend_handles_labels()[0])
        if n > 1:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2 if n < 5 else 3)
        if n > 4:
            figure.set_figheight(figure.get_figheight() + 0.16 * (n // 3))
        picture = svg(figure, slug, title, caption)
    header = [x_label]
    for line in kept:
        header += [line.label] + ([f"{line.label}, 95 % interval"] if line.low is not None else [])
    rows = []
    for x in xs:
        row = [f"{x:g}"]
        for line in kept:
            at = list(line.x).index(x) if x in line.x else None
            row.append(shown(None if at is None else line.y[at]))
            if line.low is not None and line.high is not None:
                row.append(interval(*((None, None) if at is None else (line.low[at], line.high[at]))))
        rows.append(row)
    return Plot(slug, title, picture, caption, header, rows)


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
    kept = [p for p in points if p[1] is not None and p[2] is not None and math.isfinite(p[1]) and math.isfinite(p[2])]
    if not kept:
        return None
    x, y = [float(p[1] or 0) for p in kept], [float(p[2] or 0) for p in kept]
    with drawn() as (figure, axes):
        if limit is not None:
            axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)))
            axes.annotate(f"limit ({limit:g})", (1, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                          color=LIMIT, fontsize=8.5, xytext=(0, 2), textcoords="offset points")  # fmt: skip
        if joined:
            axes.plot(x, y, color=SERIES[0], linewidth=1.2, alpha=0.6)
        if front:
            ordered = sorted(front)
            axes.step([p[0] for p in ordered], [p[1] for p in ordered], where="post", color=SERIES[1], linewidth=1.6)
        axes.scatter(x, y, s=22, color=SERIES[0], zorder=3)
        few = len(kept) <= 16
        wide = min(x) > 0 and max(x) > _WIDE * min(x)  # two corpora, each with a perplexity of its own
        middle = math.sqrt(min(x) * max(x)) if wide else (min(x) + max(x)) / 2
        for i, (label, px, py) in enumerate(zip([p[0] for p in kept], x, y, strict=True)):
            if few or i in (0, len(kept) - 1) or i % max(1, len(kept) // 10) == 0:
                left = px > middle  # A long name would leave the picture on the right.
                axes.annotate(
                    label, (px, py), xytext=(-5 if left else 5, 3), textcoords="offset points", fontsize=8.5, color=INK,
                    ha="right" if left else "left",
                )  # fmt: skip
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.margins(x=0.1, y=0.12)
        if wide:
            axes.set_xscale("log")
        picture = svg(figure, slug, title, caption)
    rows = [[p[0], shown(p[1]), shown(p[2])] for p in points]
    return Plot(slug, title, picture, caption, ["", x_label, y_label], rows)


def roc(slug: str, attacks: Sequence[Mapping[str, Any]]) -> Plot:
    """ROC curves on log axes, where the few that an attacker is sure of can be seen."""
    from matplotlib.ticker import NullFormatter

    n = max(one["n_heldout"] for one in attacks)
    floor = 1 / max(n, 10)
    title = "ROC of the attacks, log axes"
    caption = (
        "How many members an attacker finds (upwards) for how many false alarms (to the right). The left end is "
        f"what hurts: members found with hardly any false alarm. With {n} held-out texts no rate under {floor:.2g} can "
        "be told from 0."
    )
    with drawn(3.6) as (figure, axes):
        axes.plot([floor, 1], [floor, 1], color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label="guessing")
        for i, one in reversed(list(enumerate(attacks))):
            x = [max(value, floor) for value in one["roc"]["fpr"]]
            y = [max(value, floor) for value in one["roc"]["tpr"]]
            style: Any = "-" if i < len(SERIES) else (0, (3, 2))
            axes.step(
                x, y, where="post", color=SERIES[i % len(SERIES)], linewidth=2.2 if i == 0 else 1.1,
                label=one["name"], linestyle=style, zorder=4 if i == 0 else 2,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.08))
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=3)
        picture = svg(figure, slug, title, caption)
    rates = [rate for rate in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5) if rate >= 1 / n - 1e-12]
    header = [
        "attack",
        "AUROC",
        "95 % interval",
        *(f"members found at {100 * rate:g} % false alarms" for rate in rates),
    ]
    rows = []
    for one in attacks:
        pairs = list(zip(one["roc"]["fpr"], one["roc"]["tpr"], strict=True))
        found = [max(tpr for fpr, tpr in pairs if fpr <= rate + 1e-12) for rate in rates]
        ends = interval(one["auroc_low"], one["auroc_high"])
        rows.append([one["name"], shown(one["auroc"]), ends, *map(shown, found)])
    return Plot(slug, title, picture, caption, header, rows)


def histogram(slug: str, one: Mapping[str, Any]) -> Plot:
    """How an attack's scores are spread in both sets."""
    title = f"Scores of the {one['name']} attack"
    caption = (
        f"{one['n_members']} members and {one['n_heldout']} held-out texts; higher is more member-like. Where the two "
        "overlap, the attack cannot tell them apart."
    )
    edges, bins = one["histogram"]["edges"], one["histogram"]
    shares = {
        "members": [n / one["n_members"] for n in bins["members"]],
        "held-out texts": [n / one["n_heldout"] for n in bins["heldout"]],
    }
    with drawn() as (figure, axes):
        for (label, values), colour in zip(shares.items(), SERIES, strict=False):
            axes.stairs(values, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
            axes.stairs(values, edges, color=colour, linewidth=1.4, label=label)
        axes.set(xlabel="attack score", ylabel="share of the set")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        picture = svg(figure, slug, title, caption)
    rows = [
        [f"{shown(low)} to {shown(high)}", str(m), str(h)]
        for low, high, m, h in zip(edges, edges[1:], bins["members"], bins["heldout"], strict=False)
    ]
    return Plot(slug, title, picture, caption, ["score", "members", "held-out texts"], rows)


def scatter(slug: str, one: Mapping[str, Any], title: str) -> Plot:
    """Perplexity against an extraction measure, a point an example."""
    rho = one["spearman"]
    caption = (
        "Is what the model finds likely what it can be made to write? Rank correlation (Spearman) over members: "
        f"{shown(rho)}."
    )
    sets = ((False, "held-out texts", SERIES[1]), (True, "members", SERIES[0]))
    points = list(zip(one["perplexity"], one["value"], one["member"], strict=True))
    with drawn() as (figure, axes):
        for member, label, colour in sets:
            mine = [p for p in points if p[2] == member]
            axes.scatter([p[0] for p in mine], [p[1] for p in mine], s=14, color=colour, alpha=0.55, linewidths=0,
                         label=f"{label} ({len(mine)})")  # fmt: skip
        _log_ticks(axes, [p[0] for p in points])
        axes.set(xlabel="perplexity of the text, tuned model", ylabel=title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
        picture = svg(figure, slug, title, caption)
    rows = [["member" if p[2] else "held-out", shown(p[0]), shown(p[1])] for p in points]
    header = ["set", "perplexity", title]
    return Plot(
        slug, f"Perplexity against {title}", picture, caption, header, rows[:_MOST_ROWS], max(0, len(rows) - _MOST_ROWS)
    )


def _log_ticks(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with round numbers, which a range below a decade would otherwise not have."""
    from matplotlib.ticker import NullFormatter

    axes.set_xscale("log")
    low, high = min(values), max(values)
    steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high / low < 10 else (1, 3) if high / low < 1000 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    if ticks:
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
