"""Group examples of similar length into batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def length_groups(lengths: Sequence[int], token_budget: int, overhead: float | None = None) -> list[list[int]]:
    """Group examples of similar length, minimising the cost of padding and of many small groups.

    A group costs its tokens, padding included, plus `overhead` tokens, since small matrix products run below full
    speed. Dynamic programming finds the cheapest grouping of examples sorted by length.

    Args:
        lengths: tokens of each example.
        token_budget: maximum tokens in a group, padding included; a longer example is its own group.
        overhead: cost of a group, in tokens; None: `token_budget` / 16.

    Returns:
        Positions of the examples, longest group first, so that a run that does not fit in memory fails at once.
    """
    overhead = token_budget / 16 if overhead is None else overhead
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    n = len(order)
    least = np.zeros(n + 1)  # the cost of grouping examples from i on
    size = np.ones(n, dtype=np.int64)  # size of the first of these groups
    for i in reversed(range(n)):
        width = max(1, lengths[order[i]])
        sizes = np.arange(1, min(n - i, max(1, token_budget // width)) + 1)
        costs = width * sizes + overhead + least[i + sizes]
        best = int(costs.argmin())
        least[i], size[i] = costs[best], sizes[best]
    groups, start = [], 0
    while start < n:
        groups.append(order[start : start + size[start]])
        start += int(size[start])
    return groups
