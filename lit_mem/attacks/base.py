"""The contract of a membership inference attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from lit_mem.types import TokenScores


class Attack(ABC):
    """Gives each example one number, higher where it looks more like a member of the fine-tuning set.

    Every attack must be finite on a single scored token and must not depend on padding or on the other
    examples of a batch. An example without a scored token scores 0.

    Attributes:
        needs_reference: whether it reads `TokenScores.reference`.
    """

    needs_reference: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 scores of the batch's examples, on the CPU, higher = more member-like."""
