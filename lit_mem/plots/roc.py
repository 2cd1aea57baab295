"""ROC curves on log axes, which show the members found at few false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_mem.plots.style import SERIES, SOFT, TITLE_AT, Panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rates = Sequence[float] | Tensor


@styled
def roc_plot(
    curves: Mapping[str, tuple[Rates, Rates]], n_heldout: int, main: str | None = None, title: str = ""
) -> Figure:
    """A curve for each attack.

    Args:
        curves: for each attack its false- and true-positive rates, as `functional.roc.roc_curve` gives them.
        n_heldout: the smallest false-positive rate that can be distinguished from 0 is 1 / this; at least 0.1 is shown.
        main: the attack with the thick curve; None: all are alike.
        title: above the plot.
    """
    import numpy as np
    from matplotlib.ticker import NullFormatter

    panels = Panels(1, high=3.6)
    (axes,) = panels.axes
    floor = 1 / max(n_heldout, 10)
    for i, (name, rates) in enumerate(curves.items()):
        x, y = (np.maximum(np.asarray(values), floor) for values in rates)
        width = 1.4 if main is None else 2.2 if name == main else 1.1
        style: Any = "-" if i < len(SERIES) else (0, (3, 2))
        axes.step(
            x, y, where="post", label=name, color=SERIES[i % len(SERIES)], linewidth=width, linestyle=style,
            zorder=4 if name == main else 3 - 0.01 * i, gid=name,
        )  # fmt: skip
    guess: Any = (0, (1, 2))
    axes.plot(
        [floor, 1], [floor, 1], color=SOFT, linewidth=1, linestyle=guess, label="guessing", zorder=2, gid="guessing"
    )
    axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.08))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    panels.label(f"false-positive rate ({n_heldout} held-out texts)", "true-positive rate")
    if title:
        axes.set_title(title, fontsize=10, y=TITLE_AT)
    return panels.done()
