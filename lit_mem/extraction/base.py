"""The contract of an extraction measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prefix, beside what truly follows.

    Attributes:
        generated_ids: tokens written, at most as many as the true suffix has; fewer if the model ended its text.
        true_ids: tokens of the true suffix, at least one.
        generated: `generated_ids` as text.
        truth: `true_ids` as text, at least one word.
    """

    generated_ids: list[int]
    true_ids: list[int]
    generated: str
    truth: str


class ExtractionMeasure(ABC):
    """How much of the true suffix a continuation gives away: one number, higher = more extracted."""

    @abstractmethod
    def __call__(self, continuation: Continuation) -> float:
        """A finite number; 0 for an empty continuation, 1 (of a share) for the true suffix itself."""

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """The number of each continuation, in the order given.

        One after another; a measure that gains from seeing many at a time, as a neural one does, overrides this.
        """
        return [self(continuation) for continuation in continuations]
