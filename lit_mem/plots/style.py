"""The look that all plots share: colours, fonts, and panels with their labels and legend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

INK, SOFT, FAINT, LIMIT = "#1b1f24", "#5a6472", "#dde1e7", "#b3261e"
SERIES: Final = ("#0b67b8", "#d1600a", "#12805c", "#a63d8f", "#8a6d00", "#6a55c8", "#a3312d", "#50606e")
"""The light scheme of a page. All colours differ: SVG replaces each by a variable of the page, which may be dark."""
MEMBERS, HELDOUT = SERIES[0], SERIES[1]
TITLE_AT: Final = 1.0
"""Top of the axes: without a fixed place, matplotlib measures every tick label to find one for the title."""

WIDE, HIGH = 4.6, 3.1
"""Size of a single panel in inches. As SVG on a phone, text then has about the size drawn."""

_STYLE: Final = {
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.facecolor": "white",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
_TICKS: Final = {"color": SOFT, "labelcolor": INK, "grid_color": FAINT, "grid_linewidth": 0.7, "grid_alpha": 1.0}


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw in the shared style, whatever the style of the process."""

    @wraps(draw)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return within


def style_ticks(axes: Axes, size: float = 9.0) -> None:
    """Set the style of ticks, which matplotlib makes only when the plot is written."""
    axes.tick_params(which="both", labelsize=size, **_TICKS)  # type: ignore[arg-type]


class Panels:
    """A plot of one panel, or of several small ones.

    One panel has matplotlib's constrained layout. For several that would draw everything twice, so their margins are
    fixed.

    Args:
        n: how many panels; 0 gives one that is empty.
        width: of one of several panels with its margins, in inches.
        height: likewise.
        columns: most panels side by side.
        high: height of a single panel, in inches.
    """

    def __init__(self, n: int, width: float = 3.2, height: float = 2.5, columns: int = 4, high: float = HIGH) -> None:
        from matplotlib.figure import Figure

        self.single = n <= 1
        if self.single:
            self.figure = Figure(figsize=(WIDE, high), dpi=120, layout="constrained")
            self.axes: list[Axes] = [self.figure.add_subplot()]
            style_ticks(self.axes[0])
            return
        columns = min(n, columns)
        rows = -(-n // columns)
        wide, high = max(width * columns, 5.0), height * rows + 0.9
        self.figure = Figure(figsize=(wide, high))
        panels: list[Axes] = list(self.figure.subplots(rows, columns, squeeze=False).flatten())
        for axes in panels[n:]:
            axes.set_axis_off()
        self.axes = panels[:n]
        for axes in self.axes:
            style_ticks(axes, 7)
            axes.locator_params(nbins=5)  # each tick is five artists, and most of what a small panel costs
        self.figure.subplots_adjust(
            left=0.65 / wide, right=1 - 0.15 / wide, bottom=0.65 / high, top=1 - 0.6 / high, hspace=0.34, wspace=0.25
        )

    def label(self, x: str, y: str) -> None:
        """Label the axes that all panels have."""
        if self.single:
            self.axes[0].set(xlabel=x, ylabel=y)
            return
        self.figure.supxlabel(x, fontsize=9, y=0.01)
        self.figure.supylabel(y, fontsize=9, x=0.005)

    def done(self, handles: Mapping[str, Any] | None = None) -> Figure:
        """The plot, with one legend above the panels; a single line has no legend.

        Args:
            handles: of the legend by label; None: those of all panels, each label once.
        """
        found = dict(handles or {})
        for axes in self.axes if handles is None else ():
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                found.setdefault(label, handle)
        if not self.single:
            self.figure.legend(found.values(), found.keys(), loc="upper right", ncols=4, fontsize=8)
        elif len(found) > 1:
            columns = 3 if len(found) > 4 or sum(map(len, found)) <= 40 else 2
            self.figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns)
            if len(found) > 4:
                self.figure.set_figheight(self.figure.get_figheight() + 0.16 * (len(found) // 3))
        return self.figure
