"""Training order that batches examples of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import DistributedSampler

from lit_mem.data.encoding import Encoded
from lit_mem.data.examples import lengths_of


def grouped_order(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[int]:
    """A random order, sorted by length, longest first, within runs of up to 50 batches.

    The run is shorter if there would be fewer than four. The longest example comes first, so that a run that does not
    fit in memory fails at once. Equivalent to `group_by_length` of the Hugging Face Trainer.

    Args:
        lengths: number of tokens of each example.
        batch_size: examples per step on one device.
        generator: generator of the random order.

    Returns:
        A permutation of all positions.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    run = max(1, min(len(lengths) // (batch_size * 4), 50)) * batch_size
    runs = [sorted(order[at : at + run], key=lambda i: -lengths[i]) for at in range(0, len(order), run)]
    longest = max(range(len(runs)), key=lambda r: lengths[runs[r][0]], default=None)
    if longest is not None:
        runs[0][0], runs[longest][0] = runs[longest][0], runs[0][0]
    return [i for each in runs for i in each]


class GroupedOrder(DistributedSampler[Encoded]):
    """`grouped_order` from seed and epoch, distributed round-robin over ranks, so that lengths in a step are similar.

    Every rank gets the same number; if they do not divide evenly, the first ones are repeated.

    Args:
        examples: the training examples.
        batch_size: examples per step on one device.
        num_replicas: number of ranks.
        rank: rank of this process.
        seed: seed of the order.
    """

    def __init__(
        self, examples: Sequence[Encoded], batch_size: int, num_replicas: int = 1, rank: int = 0, seed: int = 0
    ) -> None:
        super().__init__(examples, num_replicas=num_replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.lengths = lengths_of(examples)
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Encoded]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = grouped_order(self.lengths, self.batch_size, generator)
        repeated = (order * -(-self.total_size // len(order)))[: self.total_size]
        return iter(repeated[self.rank :: self.num_replicas])  # type: ignore[arg-type]
