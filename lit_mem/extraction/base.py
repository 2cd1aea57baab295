"""The interface of an extraction measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Continuation:
    """A model's continuation of a prefix, and the true suffix.

    Attributes:
        generated_ids: generated tokens, at most as many as the true suffix has; fewer if the model ended the text.
        true_ids: tokens of the true suffix, at least one.
        generated: `generated_ids` as text.
        truth: `true_ids` as text, at least one word.
    """

    generated_ids: list[int]
    true_ids: list[int]
    generated: str
    truth: str


class ExtractionMeasure(ABC):
    """How much of the true suffix a continuation reproduces: one value, higher = more extracted."""

    @abstractmethod
    def __call__(self, continuation: Continuation) -> float:
        """A finite value; 0 for an empty continuation, 1 (for a share) for the true suffix itself."""

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """Values of several continuations, in the given order.

        The default measures one at a time; measures that benefit from batching, such as neural ones, override this.
        """
        return [self(continuation) for continuation in continuations]
