"""Gradient clipping and noise: the two parts of DP-SGD (Abadi et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_mem.functional.random_stream import RandomStream


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """(B,) float64, the norm of each text's gradient over all parameters.

    Args:
        gradients: for each parameter (B, *shape), of any floating dtype.
    """
    squares = []
    for g in gradients:
        if g.ndim == 2:  # a vector
            squares.append(torch.linalg.vector_norm(g, dim=1, dtype=torch.float64).square())
            continue
        # Row by row, since a float32 sum loses precision over millions of numbers: 8e-5 of the norm over four.
        rows = torch.linalg.vector_norm(g.float(), dim=-1).double()
        squares.append(rows.square().flatten(1).sum(dim=1))
    return torch.stack(squares).sum(dim=0).sqrt()


def add_clipped_(totals: Sequence[Tensor], gradients: Sequence[Tensor], clipping_norm: float) -> Tensor:
    """Add each text's gradient, clipped to the clipping norm.

    A non-finite gradient counts as zero. Everything is computed in float32, whatever the gradients' dtype: in 16 bits
    the sums with and without one text could differ by more than the clipping norm.

    Args:
        totals: for each parameter its shape, float64, since with fewer bits rounding of the sum would depend on other
            texts. Added to in place.
        gradients: for each parameter (B, *shape); overwritten.
        clipping_norm: C.

    Returns:
        (B,) float64, the norms before clipping.
    """
    with torch.no_grad(), torch.autocast(totals[0].device.type, enabled=False):
        gradients = [g.float() for g in gradients]
        length = norms(gradients)
        finite = length.isfinite()
        if not bool(finite.all()):
            gradients, length = [g[finite] for g in gradients], length[finite]
        scale = (clipping_norm / length).clamp(max=1.0).float()  # 1 for a zero gradient
        for total, g in zip(totals, gradients, strict=True):
            # Not a matrix product, which a GPU may round to fewer bits.
            total += g.mul_(scale.view(-1, *[1] * (g.ndim - 1))).sum(dim=0, dtype=total.dtype)
    return length


def add_noise_(totals: Sequence[Tensor], deviation: float, stream: RandomStream, step: int) -> None:
    """Add Gaussian noise to every element.

    Args:
        totals: modified in place.
        deviation: standard deviation of the noise, σ·C for sums of gradients clipped to C.
        stream: random stream of the noise.
        step: number of the step; must be unique per stream key, or noise would be reused.
    """
    if deviation == 0:
        return
    with torch.no_grad():
        for i, total in enumerate(totals):
            noise = torch.from_numpy(deviation * stream.normal(total.numel(), "noise", step, i))
            total += noise.to(total).view_as(total)
