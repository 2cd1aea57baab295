"""Which examples go through the model together.

Both samplers are `DistributedSampler`s, also on one process: Lightning then leaves them as they are on several,
and calls `set_epoch` on the one that shuffles, so that the order of an epoch depends on seed and epoch alone.
A resumed run therefore sees the order that the interrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Dataset, DistributedSampler

from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.examples import has_windows, lengths_of
from lit_mem.functional.length_groups import length_groups
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
    """Whole batches by the positions of their examples.

    Args:
        examples: what is scored.
        token_budget: how many tokens of windows go through the model together.
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
        self.groups = length_groups(lengths_of(examples), token_budget)
        super().__init__(self.groups, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[int]]:
        return iter([self.groups[i] for i in super().__iter__()])  # type: ignore[call-overload]
