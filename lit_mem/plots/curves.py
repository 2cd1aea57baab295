"""Curves of metrics: over the epochs, or over the length of a prefix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lit_mem.plots.style import LIMIT, SERIES, SOFT, TITLE_AT, Panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class Line:
    """A curve.

    Attributes:
        label: in the legend.
        x: of its points.
        y: of its points; NaN or None leaves a gap.
        low: lower end of each point's interval; None: it has none.
        high: upper end.
        dashed: for a baseline.
        colour: of `style.SERIES`; None: the next one.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    dashed: bool = False
    colour: str | None = None

    @property
    def measured(self) -> bool:
        """Whether it has at least one finite point."""
        return any(math.isfinite(value) for value in _floats(self.y))


@styled
def curves_plot(
    panels: Mapping[str, Sequence[Line]],
    x_label: str,
    limits: Sequence[float] = (),
    guess: float | None = None,
    from_zero: bool = False,
    columns: int = 4,
) -> Figure:
    """A panel for each metric, with its curves.

    Args:
        panels: the curves by what is on their vertical axis.
        x_label: of the horizontal axis.
        limits: values with a line each.
        guess: value of an attack that guesses; None: no line.
        from_zero: start the vertical axis at 0, so that noise does not look like a trend.
        columns: most panels side by side.
    """
    made = Panels(len(panels), columns=columns)
    guess_style: Any = (0, (1, 2))
    limit_style: Any = (0, (5, 3))
    for axes, (name, lines) in zip(made.axes, panels.items(), strict=False):
        if guess is not None:
            axes.axhline(guess, color=SOFT, linewidth=1, linestyle=guess_style, label=f"guessing ({guess:g})",
                         gid=f"guessing ({guess:g})")  # fmt: skip
        for limit in limits:
            axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=limit_style, label=f"limit ({limit:g})",
                         gid=f"limit ({limit:g})")  # fmt: skip
        _draw(axes, lines, made.single)
        if from_zero:
            axes.set_ylim(0, max(1.15 * axes.dataLim.y1, 0.01))
        if not made.single:
            axes.set_title(name, fontsize=9, y=TITLE_AT)
    made.label(x_label, next(iter(panels)) if len(panels) == 1 else "")
    return made.done()


def _draw(axes: Axes, lines: Sequence[Line], large: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    for i, line in enumerate(lines):
        colour = line.colour or SERIES[i % len(SERIES)]
        style: Any = (0, (3, 2)) if line.dashed or i >= len(SERIES) else "-"
        thin = not large or (len(lines) > 3 and i > 0 and not line.colour)  # the first of many is the main one
        axes.plot(
            line.x, _floats(line.y), color=colour, label=line.label, linestyle=style, marker="o",
            markersize=2.5 if thin else 4, linewidth=1.2 if thin else 2, zorder=2 if thin else 3, gid=line.label,
        )  # fmt: skip
        if line.low is not None and line.high is not None and not (thin and large):
            ends = _floats(line.low), _floats(line.high)
            axes.fill_between(line.x, *ends, color=colour, alpha=0.16, linewidth=0, gid=line.label)
    if all(float(x).is_integer() for line in lines for x in line.x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]
