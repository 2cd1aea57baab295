"""Perplexity against each measure of memorization, a point an example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_mem.plots.figures import BEYOND, TITLE_AT, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMBERS, HELDOUT = "tab:blue", "0.6"


def scatter_figure(
    perplexity: Tensor, member: Tensor, measures: Mapping[str, Tensor], rho: Mapping[str, float | None]
) -> Figure:
    """A panel for each measure: the tuned model's perplexity, on a log axis that all panels share, against it.

    Args:
        perplexity: (N,) of each example.
        member: (N,) bool.
        measures: for each measure its (N,) values; an example where it or the perplexity is not finite has no point.
        rho: for each measure Spearman's correlation with the perplexity over members; None: it does not exist.
    """
    from matplotlib.lines import Line2D

    figure, panels = grid(len(measures), width=2.9, height=2.3, columns=3)
    drawn = perplexity.isfinite() & (perplexity > 0)
    perplexity = perplexity.double().clamp(1 / BEYOND, BEYOND)
    ticks = _ticks(perplexity[drawn])
    for axes, (name, values) in zip(panels, measures.items(), strict=False):
        shown = drawn & values.isfinite()
        values = values.double().clamp(-BEYOND, BEYOND)
        size = min(20.0, max(5.0, 2000 / max(int(shown.sum()), 1)))
        for part, colour in ((~member, HELDOUT), (member, MEMBERS)):
            mine = shown & part
            points = perplexity[mine].numpy(), values[mine].numpy()
            axes.scatter(*points, s=size, color=colour, alpha=0.5, linewidths=0)
        axes.set_title(f"{name}   {_told(rho.get(name))}", fontsize=8, y=TITLE_AT)
        _log_axis(axes, perplexity[drawn], ticks)
        axes.grid(alpha=0.25)
    kinds = ((MEMBERS, "members", member), (HELDOUT, "held-out texts", ~member))
    marks = [
        Line2D([], [], marker="o", linestyle="", color=c, label=f"{name} ({int(n.sum())})") for c, name, n in kinds
    ]
    figure.legend(handles=marks, loc="upper right", ncols=2, fontsize=8, frameon=False)
    figure.supxlabel("perplexity of the tuned model (ρ: Spearman's correlation over members)", fontsize=9, y=0.01)
    return figure


def _told(rho: float | None) -> str:
    return "no ρ" if rho is None else f"ρ = {rho:+.2f}".replace("-", "−")


def _ticks(perplexity: Tensor) -> list[float]:
    """A few round numbers on a log axis; matplotlib labels all or none of them where the range is under a decade."""
    from matplotlib.ticker import MaxNLocator

    if not len(perplexity):
        return []
    low, high = perplexity.min().item(), perplexity.max().item()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            return inside[:: -(-len(inside) // 5)]
    return [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high] or [low]


def _log_axis(axes: Axes, perplexity: Tensor, ticks: list[float]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, labels=[f"{tick:.4g}" for tick in ticks])
    if len(perplexity):
        logs = torch.log(perplexity)
        margin = max(0.05 * (logs.max() - logs.min()).item(), 0.01)
        axes.set_xlim(math.exp(logs.min().item() - margin), math.exp(min(logs.max().item() + margin, 700)))
