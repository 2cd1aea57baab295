"""Histogram of members' and held-out texts' scores in common bins."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor

LARGEST: Final = 1e100
"""Scores are clamped to this magnitude, since the difference of two larger ones may overflow."""
_BINS: Final = 30


class Histogram(NamedTuple):
    """Counts per bin.

    Attributes:
        edges: bin edges, one more than bins; ascending.
        members: members' scores per bin.
        heldout: held-out texts' scores per bin.
    """

    edges: list[float]
    members: list[int]
    heldout: list[int]


def histogram(members: Tensor, heldout: Tensor) -> Histogram:
    """Count scores in 30 bins of equal width, whose ends are rounded, so that they do not reveal examples' scores.

    Args:
        members: (M,) finite scores; M is at least 1.
        heldout: (K,) finite scores; K is at least 1.

    >>> found = histogram(torch.tensor([0.0, 3.0]), torch.tensor([1.0]))
    >>> found.edges[0], found.edges[-1], sum(found.members), sum(found.heldout)
    (0.0, 3.0, 2, 1)
    """
    import numpy as np

    sets = [values.double().clamp(-LARGEST, LARGEST) for values in (members, heldout)]
    every = torch.cat(sets)
    ends = _round_ends(every.min().item(), every.max().item())
    edges = np.linspace(*ends, _BINS + 1)
    counts = [np.histogram(values.clamp(*ends).numpy(), edges)[0].tolist() for values in sets]
    return Histogram(edges.tolist(), *counts)


def _round_ends(low: float, high: float) -> tuple[float, float]:
    """A rounded range around the given one; its width is positive even if both ends are equal."""
    size = max(abs(low), abs(high))
    width = high - low if high - low > max(1e-100, 1e-9 * size) else max(1.0, size)
    step = 10.0 ** (math.floor(math.log10(width)) - 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return first * step, max(last, first + 1) * step
