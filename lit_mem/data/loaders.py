"""Loaders of batches: the order of training, and scoring batches, for one of several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, DistributedSampler

from lit_mem.data.batching import BatchList, ExampleList, ScoringBatches
from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.grouped_order import GroupedOrder
from lit_mem.data.poisson import PoissonBatches, StepBatches
from lit_mem.functional.random_stream import RandomStream
from lit_mem.types import Batch


class Ranks(NamedTuple):
    """The processes of a run.

    Attributes:
        world: how many there are.
        rank: which this is.
    """

    world: int = 1
    rank: int = 0


@dataclass(frozen=True)
class Loaders:
    """Makes loaders; none of them draws from the global random generator.

    Attributes:
        seed: of the order of training.
        ranks: the processes that share each loader's examples.
        num_workers: processes that build batches; 0: none but this.
        kind: the class of training loaders.
    """

    seed: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    num_workers: int = 0
    kind: type[DataLoader[Any]] = DataLoader

    def training(self, examples: Sequence[Encoded], batch_size: int, by_length: bool) -> DataLoader[Any]:
        """All examples in an order that depends on seed and epoch alone.

        Args:
            examples: what is trained on.
            batch_size: examples of a step on each process.
            by_length: whether the texts of a batch are of similar length.
        """
        rows = ExampleList(examples)
        order: DistributedSampler[Encoded]
        if by_length:
            order = GroupedOrder(examples, batch_size, *self.ranks, seed=self.seed)
        else:
            order = DistributedSampler(rows, *self.ranks, shuffle=True, seed=self.seed)
        return self.kind(rows, batch_size=batch_size, sampler=order, collate_fn=collate, **self._common())

    def private(
        self, examples: Sequence[Encoded], at_once: int, batch_size: int, stream: RandomStream, public_size: int
    ) -> DataLoader[Any]:
        """Steps for which each example is drawn by itself; see `PoissonBatches`.

        Args:
            examples: what is trained on.
            at_once: how many examples at a time go through the model.
            batch_size: examples of a step on average, over all processes.
            stream: of the draws.
            public_size: number of examples that everyone may know.
        """
        draws = PoissonBatches(len(examples), batch_size, stream, *self.ranks, public_size)
        return self.kind(StepBatches(examples, at_once), batch_size=None, sampler=draws, **self._common())

    def scoring(self, examples: Sequence[Encoded], tokens: int) -> DataLoader[Batch]:
        """All examples in batches of so many tokens at most, padding included, the longest first."""
        batches = ScoringBatches(examples, tokens, *self.ranks)
        return DataLoader(BatchList(examples, tokens), batch_size=None, sampler=batches, **self._common())

    def _common(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "generator": torch.Generator().manual_seed(self.seed),  # a loader draws from the global one otherwise
            "pin_memory": torch.cuda.is_available(),
        }
