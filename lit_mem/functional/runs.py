"""Runs of positions next to each other: the turns of a conversation, as their scored tokens show them."""

import torch
from torch import Tensor


def runs(mask: Tensor) -> list[Tensor]:
    """Positions of each run of True.

    Args:
        mask: (T,) bool.

    Returns:
        (n,) int64 each, n at least 1; none where nothing is True.

    >>> [run.tolist() for run in runs(torch.tensor([False, True, True, False, True]))]
    [[1, 2], [4]]
    """
    return consecutive(mask.nonzero().flatten())


def consecutive(positions: Tensor) -> list[Tensor]:
    """The same of positions.

    Args:
        positions: (n,) int64, rising.

    >>> [run.tolist() for run in consecutive(torch.tensor([1, 2, 4]))]
    [[1, 2], [4]]
    """
    if not len(positions):
        return []
    gaps = (positions.diff() > 1).nonzero().flatten() + 1
    return list(torch.tensor_split(positions, gaps.tolist()))
