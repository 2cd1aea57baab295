"""The interface of an extraction measure that needs only the scoring pass."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_mem.types import Needs, TokenScores


class ScoredMeasure(ABC):
    """How much of each example can be extracted: one value per example, higher = more.

    It must not depend on padding or on the other examples of a batch. An example without a scored token gives 0. Text
    after an end token (`scores.ends`) is not extracted: see `lit_mem.functional.ends`.

    Attributes:
        needs: optional fields of `TokenScores` that it reads.
    """

    needs: Needs = Needs()

    @abstractmethod
    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1], on the CPU."""
