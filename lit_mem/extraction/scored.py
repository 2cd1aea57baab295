"""The contract of a measure of extraction that the scoring pass alone gives, without generating."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_mem.types import Needs, TokenScores


class ScoredMeasure(ABC):
    """How much of each example could be had from the model: one number an example, higher = more.

    It must not depend on padding or on the other examples of a batch. An example without a scored token gives 0. What
    stands behind an end token (`scores.ends`) is not extracted: see `lit_mem.functional.ends`.

    Attributes:
        needs: what it reads of `TokenScores` that is not always there.
    """

    needs: Needs = Needs()

    @abstractmethod
    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1], on the CPU."""
