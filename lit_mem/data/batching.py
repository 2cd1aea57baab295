"""Samplers: which examples form a batch.

Both samplers are `DistributedSampler`s, even on one process: Lightning then keeps them on several processes, and calls
`set_epoch` on the one that shuffles, so the order of an epoch depends only on seed and epoch. A resumed run therefore
uses the same order as the interrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Dataset, DistributedSampler

from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.examples import has_windows, lengths_of
from lit_mem.functional.length_groups import length_groups
from lit_mem.types import Batch


class ExampleList(Dataset[Encoded]):
    """Dataset of encoded examples."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Encoded:
        return self.examples[index]


class BatchList(Dataset[Batch]):
    """Dataset of batches, indexed by the positions of their examples.

    Args:
        examples: the examples to score.
        token_budget: tokens of windows per forward pass.
    """

    def __init__(self, examples: Sequence[Encoded], token_budget: int) -> None:
        self.examples, self.token_budget = examples, token_budget
        self._has_windows = has_windows(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> Batch:  # type: ignore[override]
        batch = collate([self.examples[i] for i in indices])
        if self._has_windows:
            batch["at_once"] = self.token_budget
        return batch


class ScoringBatches(DistributedSampler[list[int]]):
    """Length-grouped batches in a fixed order, distributed over ranks.

    As few groups as fit the budget, since the scorer concatenates their texts and so computes almost no padding.

    The groups are the same for any number of ranks, so scores are bit-identical. Every rank gets the same number of
    groups; if they do not divide evenly, the first ones are repeated, and deduplicated by example id.

    Args:
        examples: the examples to score.
        token_budget: maximum tokens in a batch, padding included.
        num_replicas: number of ranks.
        rank: rank of this process.
    """

    def __init__(self, examples: Sequence[Encoded], token_budget: int, num_replicas: int = 1, rank: int = 0) -> None:
        self.groups = length_groups(lengths_of(examples), token_budget, overhead=token_budget)
        super().__init__(self.groups, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return iter([self.groups[i] for i in super().__iter__()])  # type: ignore[call-overload]
