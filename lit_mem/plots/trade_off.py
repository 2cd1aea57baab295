"""Utility against memorization, a point an epoch or a configuration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from lit_mem.plots.style import INK, LIMIT, SERIES, Panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS: Final = "points"
FRONT: Final = "the best of both"
"""Name of the line that joins the points of the front."""
_FAR_APART: Final = 20
_MOST_LABELS: Final = 16


@styled
def trade_off_plot(
    points: Sequence[tuple[str, float, float]],
    x_label: str,
    y_label: str,
    limit: float | None = None,
    joined: bool = True,
    front: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Labelled points; of more than 16 about ten have their label.

    Args:
        points: label, utility and memorization of each; at least one, all finite.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        limit: on memorization.
        joined: draw a path in the order given.
        front: points of the front, which a line joins.
    """
    panels = Panels(1)
    (axes,) = panels.axes
    x, y = [point[1] for point in points], [point[2] for point in points]
    if limit is not None:
        style: Any = (0, (5, 3))
        name = f"limit ({limit:g})"
        axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=style, gid=name)
        axes.annotate(name, (1, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      color=LIMIT, fontsize=8.5, xytext=(0, 2), textcoords="offset points", gid=name)  # fmt: skip
    if joined:
        axes.plot(x, y, color=SERIES[0], linewidth=1.2, alpha=0.6, gid=POINTS)
    axes.scatter(x, y, s=22, color=SERIES[0], zorder=3, gid=POINTS)
    if front:
        ordered = sorted(front)
        axes.step([p[0] for p in ordered], [p[1] for p in ordered], where="post", color=SERIES[1], linewidth=1.6,
                  gid=FRONT)  # fmt: skip
    wide = min(x) > 0 and max(x) > _FAR_APART * min(x)  # two corpora, each with a perplexity of its own
    _label(axes, points, math.sqrt(min(x) * max(x)) if wide else (min(x) + max(x)) / 2)
    panels.label(x_label, y_label)
    axes.margins(x=0.1, y=0.12)
    if wide:
        axes.set_xscale("log")
    return panels.done()


def _label(axes: Axes, points: Sequence[tuple[str, float, float]], middle: float) -> None:
    n = len(points)
    for i, (label, x, y) in enumerate(points):
        if n <= _MOST_LABELS or i in (0, n - 1) or i % max(1, n // 10) == 0:
            left = x > middle  # on the right a long name would leave the plot
            axes.annotate(
                label, (x, y), xytext=(-5 if left else 5, 3), textcoords="offset points", fontsize=8.5, color=INK,
                ha="right" if left else "left", gid=POINTS,
            )  # fmt: skip
