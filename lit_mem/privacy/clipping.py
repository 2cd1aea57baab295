"""A bound on what one text can change, and noise to hide that: the two halves of DP-SGD (Abadi et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_mem.functional.random_stream import RandomStream


def norms(gradients: Sequence[Tensor]) -> Tensor:
    """(B,) float64, the norm of each text's gradient over all parameters together.

    Args:
        gradients: for each parameter (B, *shape), of any floating type.
    """
    squares = []
    for g in gradients:
        if g.ndim == 2:  # of a vector
            squares.append(torch.linalg.vector_norm(g, dim=1, dtype=torch.float64).square())
            continue
        # Row by row, as a sum in float32 loses too much over millions of numbers: 8e-5 of the norm over four.
        rows = torch.linalg.vector_norm(g.float(), dim=-1).double()
        squares.append(rows.square().flatten(1).sum(dim=1))
    return torch.stack(squares).sum(dim=0).sqrt()


def add_clipped_(totals: Sequence[Tensor], gradients: Sequence[Tensor], clipping_norm: float) -> Tensor:
    """Add each text's gradient, scaled down to the clipping norm where it is longer.

    A gradient that is not finite counts as none. All is done in float32, whatever the gradients are in: in 16 bits the
    sum of two texts that differ in one could differ by more than the clipping norm.

    Args:
        totals: for each parameter its shape, float64: in fewer bits a sum is rounded otherwise without one text.
            Added to.
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
        scale = (clipping_norm / length).clamp(max=1.0).float()  # of a zero gradient: 1
        for total, g in zip(totals, gradients, strict=True):
            # No product of matrices, which a GPU may round to fewer bits.
            total += g.mul_(scale.view(-1, *[1] * (g.ndim - 1))).sum(dim=0, dtype=total.dtype)
    return length


def add_noise_(totals: Sequence[Tensor], deviation: float, stream: RandomStream, step: int) -> None:
    """Add normal noise to every number.

    Args:
        totals: added to.
        deviation: of the noise, σ·C for sums of gradients that were clipped to C.
        stream: where the noise comes from.
        step: no two steps may have the same number while the stream's key is the same, or their noise would be too.
    """
    if deviation == 0:
        return
    with torch.no_grad():
        for i, total in enumerate(totals):
            noise = torch.from_numpy(deviation * stream.normal(total.numel(), "noise", step, i))
            total += noise.to(total).view_as(total)
