"""Poisson sampling for training with differential privacy: each step draws every example independently.

The bound on epsilon is computed for exactly this: each example is in a step's batch with a fixed probability,
independently of all others. For a shuffled order split into batches that bound does not hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler

from lit_mem.data.encoding import Encoded, collate
from lit_mem.functional.random_stream import RandomStream
from lit_mem.types import IGNORED, Batch


class PoissonBatches(DistributedSampler[list[int]]):
    """Positions of the examples of each step; their number varies between steps, and may be 0.

    One draw over all examples, the same on every rank, is distributed over ranks. So the batch of a step does not
    depend on the number of ranks.

    A `DistributedSampler`, even on one process, so that Lightning keeps it and calls `set_epoch`.

    Args:
        size: number of examples.
        batch_size: expected number of `public_size` examples per step, over all ranks.
        stream: random stream of the draws; the same on every rank.
        num_replicas: number of ranks.
        rank: rank of this process.
        public_size: public number of examples, from which the probability and the number of steps are computed; at
            least `size`. None: equal to `size`. With canaries, whose coins are secret, the size with all canaries
            inserted.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        stream: RandomStream,
        num_replicas: int = 1,
        rank: int = 0,
        public_size: int | None = None,
    ) -> None:
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.size, self.batch_size, self.stream = size, batch_size, stream
        self.public_size = size if public_size is None else public_size
        self._last = (-1, -1)

    @property
    def sample_rate(self) -> float:
        """The probability with which an example is in a step's batch."""
        return self.batch_size / self.public_size

    def __len__(self) -> int:
        """Steps per epoch, so that each example is drawn once on average."""
        return -(-self.public_size // self.batch_size)

    def drawn(self, epoch: int, step: int) -> np.ndarray:  # type: ignore[type-arg]
        """Sorted positions of all ranks' examples in this step of an epoch."""
        return np.flatnonzero(self.stream.uniform(self.size, "batch", epoch, step) < self.sample_rate)

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's positions, step by step.

        Raises:
            RuntimeError: a draw would be reused, since `set_epoch` was not called for a new epoch.
        """
        for step in range(len(self)):
            if (self.epoch, step) <= self._last:
                raise RuntimeError("a draw may be used only once; call set_epoch before each epoch")
            self._last = (self.epoch, step)
            yield self.drawn(self.epoch, step)[self.rank :: self.num_replicas].tolist()


def padded_width(length: int) -> int:
    """The padded length of a text: 8, 12, 16, 24, 32, 48, 64 and so on.

    >>> [padded_width(n) for n in (1, 8, 9, 13, 33, 48, 100)]
    [8, 8, 12, 16, 48, 48, 128]
    """
    width = 8
    while width < length:
        width += width // 2 if width & (width - 1) == 0 else width // 3
    return width


def filled(batch: Batch, rows: int) -> Batch:
    """Token ids and labels of a batch, padded with empty rows up to this number; other keys are dropped.

    The number of rows determines the shape of every matrix product, and so its rounding.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    missing = (max(0, rows - len(ids)), ids.shape[1])
    more: dict[str, Tensor] = {
        "input_ids": torch.cat([ids, ids.new_zeros(missing)]),
        "labels": torch.cat([labels, labels.new_full(missing, IGNORED)]),
    }
    return more  # type: ignore[return-value]


class StepBatches(Dataset[list[Batch]]):
    """The forward passes of a step, a few examples at a time.

    Texts are batched with others of the same padded width, which depends only on their own length. If a text were
    padded to the longest text in its batch, its gradient would be rounded differently without that text, and in 16 bits
    the effect of one text could exceed the clipping norm. For the same reason `filled` pads the last batch of each
    width to `batch_size` rows. How a step's examples are split has no other effect.

    Args:
        examples: all examples.
        batch_size: maximum examples per forward pass.
    """

    def __init__(self, examples: Sequence[Encoded], batch_size: int) -> None:
        self.examples, self.batch_size = examples, batch_size

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> list[Batch]:  # type: ignore[override]
        """Batches of the examples at these positions; empty for none."""
        by_width: dict[int, list[Encoded]] = {}
        for i in indices:
            example = self.examples[i]
            by_width.setdefault(padded_width(len(example.input_ids)), []).append(example)
        return [
            collate(same[start : start + self.batch_size], width)
            for width, same in sorted(by_width.items(), reverse=True)  # a batch that does not fit in memory fails first
            for start in range(0, len(same), self.batch_size)
        ]
