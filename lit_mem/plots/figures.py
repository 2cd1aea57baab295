"""Figures, as matplotlib objects that belong to no window and no global state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE_AT: Final = 1.0
"""Top of the axes; matplotlib measures every tick label to find where a title without a place is free of them."""
BEYOND: Final = 1e100
"""Scores further from 0 are drawn here, as the distance of two such need not be a number."""


@contextmanager
def any_script() -> Iterator[None]:
    """While words of the data are drawn: what the font lacks becomes a box, without a warning for each character."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def roc_figure(curves: Mapping[str, tuple[Tensor, Tensor]], n_nonmembers: int) -> Figure:
    """ROC curves on log axes, where the few surest guesses can be seen.

    Args:
        curves: for each attack its false- and true-positive rates, as `functional.roc.roc_curve` gives them.
        n_nonmembers: the smallest false-positive rate that can be told from 0 is 1 / this.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(5, 4.5))
    axes = figure.add_axes((0.135, 0.115, 0.835, 0.82))
    floor = 1 / max(n_nonmembers, 10)
    for name, (fpr, tpr) in curves.items():
        axes.step(fpr.clamp(min=floor), tpr.clamp(min=floor), where="post", label=name)
    axes.plot([floor, 1], [floor, 1], color="0.6", linestyle="--", linewidth=1, label="guessing")
    axes.set(
        xscale="log",
        yscale="log",
        xlim=(floor, 1),
        ylim=(floor, 1.05),
        xlabel=f"false-positive rate ({n_nonmembers} non-members)",
        ylabel="true-positive rate",
    )
    axes.set_title("Membership inference", y=TITLE_AT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())  # labels between decades do not fit into the margin
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def grid(n: int, width: float = 3.2, height: float = 2.5, columns: int = 4) -> tuple[Figure, list[Axes]]:
    """A figure with n small panels, its margins set: matplotlib's own layouts draw everything twice.

    Args:
        n: panels; at least one is there.
        width: of a panel with its margin, in inches.
        height: likewise.
        columns: most panels side by side.
    """
    import numpy as np
    from matplotlib.figure import Figure

    columns = max(1, min(n, columns))
    rows = max(1, -(-n // columns))
    wide, high = max(width * columns, 5.0), height * rows + 0.9
    figure = Figure(figsize=(wide, high))
    panels = list(np.atleast_1d(figure.subplots(rows, columns)).flatten())
    for axes in panels[n:]:
        axes.set_axis_off()
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=5)  # each tick is five artists, and most of what a small panel costs
    figure.subplots_adjust(
        left=0.65 / wide, right=1 - 0.15 / wide, bottom=0.65 / high, top=1 - 0.6 / high, hspace=0.34, wspace=0.25
    )
    return figure, panels[: max(n, 1)]


def histograms_figure(scores: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """How each attack's scores are spread in both sets, a panel each.

    Args:
        scores: for each attack the members' (M,) and the non-members' (K,) scores.
    """
    import numpy as np

    figure, panels = grid(len(scores))
    for axes, (name, (members, nonmembers)) in zip(panels, scores.items(), strict=False):
        shown = [values.double().clamp(-BEYOND, BEYOND) for values in (members, nonmembers)]
        edges = np.linspace(*_ends(torch.cat(shown)), 41)
        for label, values in zip(("members", "non-members"), shown, strict=True):
            density, _ = np.histogram(values.numpy(), edges, density=True)
            axes.stairs(density, edges, fill=True, alpha=0.55, label=f"{label} ({len(values)})")
        axes.set_title(name, fontsize=9, y=TITLE_AT)
    if scores:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=2, fontsize=8, frameon=False)
    figure.supxlabel("attack score (higher = more member-like)", fontsize=9, y=0.01)
    figure.supylabel("density", fontsize=9, x=0.005)
    return figure


def _ends(values: Tensor) -> tuple[float, float]:
    """Of an axis that holds the values, and can be told apart where these hardly can."""
    low, high = values.min().item(), values.max().item()
    size = max(abs(low), abs(high))
    return (low, high) if high - low > max(1e-100, 1e-9 * size) else (low, low + max(1.0, size))


def sweep_figure(curves: Mapping[str, Mapping[str, Sequence[float]]], prefixes: Sequence[float]) -> Figure:
    """Extraction measures against the length of the prefix, a panel each.

    Args:
        curves: for each measure its value at every prefix, by whose texts and which model ("members, base").
        prefixes: shares of a text, or numbers of tokens, as many as each curve has values.
    """
    figure, panels = grid(len(curves), columns=2 if len(curves) <= 4 else 3)
    order = sorted(range(len(prefixes)), key=lambda i: prefixes[i])
    for axes, (name, lines) in zip(panels, curves.items(), strict=False):
        for label, values in lines.items():
            style = "--" if "base" in label else "-"
            colour = "tab:blue" if label.startswith("members") else "tab:orange"
            points = [prefixes[i] for i in order], [values[i] for i in order]
            axes.plot(*points, style, color=colour, marker="o", markersize=3, label=label)
        axes.set_title(name, fontsize=9, y=TITLE_AT)
        axes.grid(alpha=0.3)
    if curves:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=4, fontsize=8, frameon=False)
    unit = "share of the text" if max(prefixes) < 1 else "tokens"
    figure.supxlabel(f"prefix ({unit}); mean over the texts asked", fontsize=9, y=0.01)
    return figure
