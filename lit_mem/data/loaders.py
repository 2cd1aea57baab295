"""Data loaders: training batches in order, and scoring batches, for one of several processes."""

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
        world: number of processes.
        rank: rank of this process.
    """

    world: int = 1
    rank: int = 0


@dataclass(frozen=True)
class Loaders:
    """Creates loaders; none of them uses the global random generator.

    Attributes:
        seed: seed of the training order.
        ranks: the processes that share each loader's examples.
        num_workers: worker processes; 0: none.
        kind: the class of training loaders.
    """

    seed: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    num_workers: int = 0
    kind: type[DataLoader[Any]] = DataLoader

    def training(self, examples: Sequence[Encoded], batch_size: int, by_length: bool) -> DataLoader[Any]:
        """All examples in an order that depends only on seed and epoch.

        Args:
            examples: the training examples.
            batch_size: examples per step on each process.
            by_length: whether to batch texts of similar length.
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
        """Steps with Poisson sampling; see `PoissonBatches`.

        Args:
            examples: the training examples.
            at_once: examples per forward pass.
            batch_size: expected examples per step, over all processes.
            stream: random stream of the draws.
            public_size: public number of examples.
        """
        draws = PoissonBatches(len(examples), batch_size, stream, *self.ranks, public_size)
        return self.kind(StepBatches(examples, at_once), batch_size=None, sampler=draws, **self._common())

    def scoring(self, examples: Sequence[Encoded], tokens: int) -> DataLoader[Batch]:
        """All examples in batches of at most this many tokens, padding included, longest first."""
        batches = ScoringBatches(examples, tokens, *self.ranks)
        return DataLoader(BatchList(examples, tokens), batch_size=None, sampler=batches, **self._common())

    def _common(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "generator": torch.Generator().manual_seed(self.seed),  # otherwise a loader uses the global one
            "pin_memory": torch.cuda.is_available(),
        }
