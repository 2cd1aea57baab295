"""Who is exposed most: one attack on each subgroup, beside the whole set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lit_mem.metrics.slices import Exposure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS: Final = 15
_LONGEST_LABEL: Final = 28


def exposure_figure(columns: Mapping[str, Sequence[Exposure]], overall: float, attack: str) -> Figure:
    """A forest plot, a panel a column, the most exposed subgroup on top.

    Args:
        columns: the subgroups by the column that tells them apart; of more than 15 in one the most exposed are drawn.
        overall: the attack's AUROC on all examples.
        attack: its name.
    """
    from matplotlib.figure import Figure

    drawn = {
        column: sorted(rows, key=lambda row: -row.area.value)[:_MOST_ROWS] for column, rows in columns.items() if rows
    }
    heights = [len(rows) + 1.6 for rows in drawn.values()] or [1.0]
    figure = Figure(figsize=(6.4, 0.26 * sum(heights) + 1.1), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (column, rows) in zip(panels, drawn.items(), strict=False):
        values = [row.area.value for row in rows]
        below = [row.area.value - row.area.low for row in rows]
        above = [row.area.high - row.area.value for row in rows]
        axes.axvline(0.5, color="0.6", linestyle="--", linewidth=1, label="guessing")
        axes.axvline(overall, color="C1", linewidth=1.2, label=f"all texts: {overall:.3f}")
        axes.errorbar(values, range(len(rows)), xerr=[below, above], fmt="o", color="C0", markersize=4, capsize=2)
        # No label is mathematics, whatever dollar signs the data holds.
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8, parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        omitted = len(columns[column]) - len(rows)
        note = f" (the {len(rows)} most exposed of {len(columns[column])})" if omitted else ""
        axes.set_title(f"{_short(column)}  (members / non-members){note}", fontsize=9, loc="left", parse_math=False)
        axes.grid(axis="x", alpha=0.3)
    if drawn:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=8)
    panels[-1].set_xlabel(f"AUROC of {_short(attack)}, 95 % interval", fontsize=9, parse_math=False)
    return figure


def _label(row: Exposure) -> str:
    return f"{_short(row.value)}  ({row.n_members} / {row.n_nonmembers})"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
