"""AUROC of one attack on each subgroup, beside that of all texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lit_mem.functional.auroc import GroupAuroc
from lit_mem.functional.plain_text import printable
from lit_mem.plots.output import any_script
from lit_mem.plots.style import SERIES, SOFT, TITLE_AT, style_ticks, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS: Final = 15
_LONGEST_LABEL: Final = 28
_LABEL_SIZE: Final = 8

# In inches. The plot is wider where labels would leave a panel less than its least width. The space between panels, in
# rows, holds their titles.
_WIDE: Final = 6.4
_PANEL: Final = 3.6
_ROW: Final = 0.26
_BETWEEN: Final = 1.6
_TOP: Final = 0.3
_BOTTOM: Final = 0.55


@styled
def subgroups_plot(columns: Mapping[str, Sequence[GroupAuroc]], overall: float, attack: str) -> Figure:
    """A forest plot, a panel a column, the most exposed subgroup on top.

    Args:
        columns: the subgroups by the column that defines them; of more than 15 in a column the most exposed are drawn.
        overall: the attack's AUROC on all examples.
        attack: its name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = {
        column: sorted(rows, key=lambda row: -row.area.value)[:_MOST_ROWS] for column, rows in columns.items() if rows
    }
    n_rows = [len(rows) for rows in drawn.values()] or [1]
    high = _ROW * sum(n + _BETWEEN for n in n_rows) + _TOP + _BOTTOM
    figure = Figure(figsize=(_WIDE, high))
    FigureCanvasAgg(figure)  # measures the labels
    left = _widest([_label(row) for rows in drawn.values() for row in rows], figure) + 0.15
    wide = max(_WIDE, left + _PANEL)
    figure.set_figwidth(wide)
    panels: list[Axes] = []
    floor = high - _TOP
    for n in n_rows:
        floor -= _ROW * (n + _BETWEEN)
        place = (left / wide, floor / high, 1 - (left + 0.1) / wide, _ROW * (n + 0.2) / high)
        panels.append(figure.add_axes(place, sharex=panels[0] if panels else None))
        style_ticks(panels[-1])
        panels[-1].tick_params(labelbottom=len(panels) == len(n_rows))
    for axes, (column, rows) in zip(panels, drawn.items(), strict=False):
        values = [row.area.value for row in rows]
        below = [row.area.value - row.area.low for row in rows]
        above = [row.area.high - row.area.value for row in rows]
        axes.axvline(0.5, color=SOFT, linestyle=(0, (1, 2)), linewidth=1, label="guessing")
        axes.axvline(overall, color=SERIES[1], linewidth=1.2, label=f"all texts: {overall:.3f}")
        axes.errorbar(values, range(len(rows)), xerr=[below, above], fmt="o", color=SERIES[0], markersize=4, capsize=2)
        # Dollar signs in the data do not start mathematics.
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=_LABEL_SIZE, parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        omitted = len(columns[column]) - len(rows)
        note = f" (the {len(rows)} most exposed of {len(columns[column])})" if omitted else ""
        title = f"{_short(column)}  (members / held-out texts){note}"
        axes.set_title(title, fontsize=9, loc="left", parse_math=False, y=TITLE_AT)
        axes.grid(visible=False, axis="y")
    if drawn:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=2, fontsize=8)
    panels[-1].set_xlabel(f"AUROC of {_short(attack)}, 95 % interval", fontsize=9, parse_math=False)
    return figure


def _widest(labels: Sequence[str], figure: Figure) -> float:
    """Width of the widest label in inches; matplotlib's own layouts would draw everything twice to find it."""
    from matplotlib.font_manager import FontProperties

    renderer, font = figure.canvas.get_renderer(), FontProperties(size=_LABEL_SIZE)  # type: ignore[attr-defined]
    with any_script():
        widths = [renderer.get_text_width_height_descent(label, font, False)[0] for label in labels]
    return float(max(widths, default=0.0)) / figure.dpi


def _label(row: GroupAuroc) -> str:
    return f"{_short(row.value)}  ({row.n_members} / {row.n_nonmembers})"


def _short(text: str) -> str:
    return printable(text, _LONGEST_LABEL)
