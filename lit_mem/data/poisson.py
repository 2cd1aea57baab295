"""Batches for training with differential privacy: in each step every example is drawn by itself.

The bound on epsilon is computed for exactly this: each example is in a step's batch with one probability, whatever else
is in it. A shuffled order cut into batches is something else, for which that bound does not hold.
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
    """Positions of the examples of each step; their number varies from step to step, and may be 0.

    One draw over all examples decides, the same on every rank; then it is dealt out. So the batch of a step is the same
    whatever the number of ranks.

    A `DistributedSampler`, also on one process, so that Lightning leaves it as it is, and tells it the epoch.

    Args:
        size: number of examples.
        batch_size: how many of `public_size` are in a step on average, over all ranks.
        stream: of the draws; the same on every rank.
        num_replicas: number of ranks.
        rank: this one.
        public_size: number of examples that everyone may know, from which the probability and the number of steps come;
            not below `size`. None: that is `size`. With canaries, whose coins are secret, it is that of all heads.
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
        """Steps of an epoch: as many as it takes for each example to be drawn once on average."""
        return -(-self.public_size // self.batch_size)

    def drawn(self, epoch: int, step: int) -> np.ndarray:  # type: ignore[type-arg]
        """Positions of all ranks' examples in this step of an epoch, in order."""
        return np.flatnonzero(self.stream.uniform(self.size, "batch", epoch, step) < self.sample_rate)

    def __iter__(self) -> Iterator[list[int]]:
        """This rank's positions, step by step.

        Raises:
            RuntimeError: a draw would be used a second time, as nobody has said that another epoch begins.
        """
        for step in range(len(self)):
            if (self.epoch, step) <= self._last:
                raise RuntimeError("a draw may be used once only; set_epoch must be called before each epoch")
            self._last = (self.epoch, step)
            yield self.drawn(self.epoch, step)[self.rank :: self.num_replicas].tolist()


def padded_width(length: int) -> int:
    """To how many tokens a text of so many is padded: 8, 12, 16, 24, 32, 48, 64 and so on.

    >>> [padded_width(n) for n in (1, 8, 9, 13, 33, 48, 100)]
    [8, 8, 12, 16, 48, 48, 128]
    """
    width = 8
    while width < length:
        width += width // 2 if width & (width - 1) == 0 else width // 3
    return width


def filled(batch: Batch, rows: int) -> Batch:
    """Token ids and labels of a batch with rows of padding after its texts, up to this number; nothing else of it.

    How many texts stand beside one another decides the shape of every product, and that how a device rounds.
    """
    ids, labels = batch["input_ids"], batch["labels"]
    missing = (max(0, rows - len(ids)), ids.shape[1])
    more: dict[str, Tensor] = {
        "input_ids": torch.cat([ids, ids.new_zeros(missing)]),
        "labels": torch.cat([labels, labels.new_full(missing, IGNORED)]),
    }
    return more  # type: ignore[return-value]


class StepBatches(Dataset[list[Batch]]):
    """What goes through the model in a step, a few examples at a time.

    A text stands among such as are padded to the same width, which depends on its own length alone. Were it padded to
    the longest text beside it, its gradient would be rounded otherwise without that one, and in 16 bits what one text
    can change would pass the clipping norm by as much. For the same reason `filled` brings the last of each width to
    `batch_size` rows. How a step's examples are split changes nothing else.

    Args:
        examples: all of them.
        batch_size: most examples that go through the model together.
    """

    def __init__(self, examples: Sequence[Encoded], batch_size: int) -> None:
        self.examples, self.batch_size = examples, batch_size

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> list[Batch]:  # type: ignore[override]
        """Of the examples at these positions; of none, no batch at all."""
        by_width: dict[int, list[Encoded]] = {}
        for i in indices:
            example = self.examples[i]
            by_width.setdefault(padded_width(len(example.input_ids)), []).append(example)
        return [
            collate(same[start : start + self.batch_size], width)
            for width, same in sorted(by_width.items(), reverse=True)  # what does not fit in memory fails at once
            for start in range(0, len(same), self.batch_size)
        ]
