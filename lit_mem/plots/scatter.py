"""Perplexity against measures of memorization, a point an example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_mem.functional.histogram import LARGEST
from lit_mem.plots.style import HELDOUT, MEMBERS, TITLE_AT, Panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Sequence[float] | Tensor


@styled
def scatter_plot(
    perplexity: Values,
    member: Sequence[bool] | Tensor,
    measures: Mapping[str, Values],
    rho: Mapping[str, float | None],
) -> Figure:
    """A panel for each measure: the tuned model's perplexity, on a log axis that all panels share, against it.

    Args:
        perplexity: (N,) of each example.
        member: (N,) bool.
        measures: for each measure its (N,) values; an example where it or the perplexity is not finite has no point.
        rho: for each measure Spearman's correlation with the perplexity over members; None: it does not exist.
    """
    from matplotlib.lines import Line2D

    panels = Panels(len(measures), width=2.9, height=2.3, columns=3)
    x, is_member = torch.as_tensor(perplexity, dtype=torch.float64), torch.as_tensor(member, dtype=torch.bool)
    drawn = x.isfinite() & (x > 0)
    x = x.clamp(1 / LARGEST, LARGEST)
    sets = (("members", is_member, MEMBERS), ("held-out texts", ~is_member, HELDOUT))
    ticks = _ticks(x[drawn])
    for axes, (measure, values) in zip(panels.axes, measures.items(), strict=False):
        y = torch.as_tensor(values, dtype=torch.float64)
        shown = drawn & y.isfinite()
        y = y.clamp(-LARGEST, LARGEST)
        size = min(20.0, max(5.0, 2000 / max(int(shown.sum()), 1)))
        for name, part, colour in sets:
            points = x[shown & part].numpy(), y[shown & part].numpy()
            axes.scatter(*points, s=size, color=colour, alpha=0.7 if panels.single else 0.5, linewidths=0, gid=name)
        if not panels.single:
            axes.set_title(f"{measure}   {_correlation(rho.get(measure))}", fontsize=8, y=TITLE_AT)
        _log_axis(axes, x[drawn], ticks)
    if len(measures) == 1:
        ((name, _),) = measures.items()
        panels.label(f"perplexity of the tuned model ({_correlation(rho.get(name))} over members)", name)
    else:
        panels.label("perplexity of the tuned model (ρ: Spearman's correlation over members)", "")
    counts = {name: int((drawn & part).sum()) for name, part, _ in sets}
    return panels.done(
        {f"{name} ({counts[name]})": Line2D([], [], marker="o", linestyle="", color=colour) for name, _, colour in sets}
    )


def drawable(perplexity: float, measure: float) -> bool:
    """Whether an example has a point."""
    return math.isfinite(perplexity) and perplexity > 0 and math.isfinite(measure)


def _correlation(rho: float | None) -> str:
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
