"""Figures, as matplotlib objects that belong to no window and no global state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def roc_figure(curves: Mapping[str, tuple[Tensor, Tensor]], n_nonmembers: int) -> Figure:
    """ROC curves on log axes, where the few surest guesses can be seen.

    Args:
        curves: for each attack its false- and true-positive rates, as `functional.roc.roc_curve` gives them.
        n_nonmembers: the smallest false-positive rate that can be told from 0 is 1 / this.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.add_subplot()
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
        title="Membership inference",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def histogram_figure(name: str, members: Tensor, nonmembers: Tensor) -> Figure:
    """How an attack's scores are spread in both sets.

    Args:
        name: the attack's.
        members: (M,) scores.
        nonmembers: (K,) scores.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.add_subplot()
    low = min(members.min().item(), nonmembers.min().item())
    high = max(members.max().item(), nonmembers.max().item())
    edges = np.linspace(low, high if high > low else low + 1, 41)
    for label, scores in (("members", members), ("non-members", nonmembers)):
        axes.hist(scores.numpy(), bins=edges.tolist(), alpha=0.55, density=True, label=f"{label} ({len(scores)})")
    axes.set(xlabel=f"{name} score (higher = more member-like)", ylabel="density", title=f"Attack: {name}")
    axes.legend()
    return figure
