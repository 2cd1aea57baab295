"""Runs of consecutive positions, such as the scored turns of a conversation."""

import torch
from torch import Tensor


def runs(mask: Tensor) -> list[Tensor]:
    """Positions of each run of True.

    Args:
        mask: (T,) bool.

    Returns:
        (n,) int64 each, n at least 1; empty if nothing is True.

    >>> [run.tolist() for run in runs(torch.tensor([False, True, True, False, True]))]
    [[1, 2], [4]]
    """
    return consecutive(mask.nonzero().flatten())


def consecutive(positions: Tensor) -> list[Tensor]:
    """Split sorted positions into runs of consecutive ones.

    Args:
        positions: (n,) int64, ascending.

    >>> [run.tolist() for run in consecutive(torch.tensor([1, 2, 4]))]
    [[1, 2], [4]]
    """
    if not len(positions):
        return []
    gaps = (positions.diff() > 1).nonzero().flatten() + 1
    return list(torch.tensor_split(positions, gaps.tolist()))
