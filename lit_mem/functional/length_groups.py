"""Examples of similar length in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def length_groups(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Group examples of similar length, so that as little as possible is spent on padding and on many small groups.

    A group costs its tokens, padding included, and as much again as `token_budget` / 16 tokens for being one more:
    small products run below the speed of large ones. The grouping is the cheapest there is of examples in order of
    length, by dynamic programming.

    Args:
        lengths: tokens of each example.
        token_budget: most tokens in a group, padding included; a longer example stands alone.

    Returns:
        Positions of the examples, longest group first, so that a run that cannot fit in memory fails at once.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    n = len(order)
    least = np.zeros(n + 1)  # the cost of grouping all from the i-th on
    size = np.ones(n, dtype=np.int64)  # of the first of these groups
    for i in reversed(range(n)):
        width = max(1, lengths[order[i]])
        sizes = np.arange(1, min(n - i, max(1, token_budget // width)) + 1)
        costs = width * sizes + token_budget / 16 + least[i + sizes]
        best = int(costs.argmin())
        least[i], size[i] = costs[best], sizes[best]
    groups, start = [], 0
    while start < n:
        groups.append(order[start : start + size[start]])
        start += int(size[start])
    return groups
