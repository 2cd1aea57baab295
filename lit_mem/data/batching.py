"""Which examples go through the model together.

Both samplers are `DistributedSampler`s, also on one process: Lightning then leaves them as they are on several,
and calls `set_epoch` on the one that shuffles, so that the order of an epoch depends on seed and epoch alone.
A resumed run therefore sees the order that the interrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from lit_mem.data.encoding import Encoded, collate
from lit_mem.types import Batch


class ExampleList(Dataset[Encoded]):
    """Encoded examples by position."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Encoded:
        return self.examples[index]


class BatchList(Dataset[Batch]):
    """Whole batches by the positions of their examples."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> Batch:  # type: ignore[override]
        return collate([self.examples[i] for i in indices])


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


class ScoringBatches(DistributedSampler[list[int]]):
    """Length-grouped batches in a fixed order, dealt out over ranks.

    The groups are the same for any number of ranks, so scores are too, to the last bit. Every rank gets as
    many; the first groups come twice where they do not divide evenly, and count once by example id.

    Args:
        examples: what is scored.
        token_budget: most tokens in a batch, padding included.
        num_replicas: number of ranks.
        rank: this one.
    """

    def __init__(self, examples: Sequence[Encoded], token_budget: int, num_replicas: int = 1, rank: int = 0) -> None:
        self.groups = length_groups([len(e.input_ids) for e in examples], token_budget)
        super().__init__(self.groups, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return iter([self.groups[i] for i in super().__iter__()])  # type: ignore[call-overload]
