"""The interface of a membership inference attack."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_mem.types import Needs, Prober, TokenScores


class Attack(ABC):
    """Gives each example one score, higher if it looks more like a member of the fine-tuning set.

    Every attack must be finite on a single scored token and must not depend on padding or on the other
    examples of a batch. An example without a scored token scores 0, and is left out of all metrics.

    Attributes:
        needs: optional fields of `TokenScores` that it reads.
    """

    needs: Needs = Needs()

    @abstractmethod
    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 scores of the batch's examples, on the CPU, higher = more member-like."""

    def over_set(self, score: Tensor, member: Tensor) -> Tensor:
        """Postprocess the scores of a whole set; the default returns them unchanged.

        Args:
            score: (N,) float64, the attack's scores.
            member: (N,) bool.
        """
        return score


class ProbingAttack(Attack):
    """An attack that needs further forward passes beside the scoring pass.

    It reads the tokens in `scores.batch` and runs `self.prober`, which is set before the first batch of every
    validation. An example that it cannot score, because its text is part of the prefix, scores NaN and is left out of
    this attack's metrics.
    """

    prober: Prober

    def prepare(self, prober: Prober) -> None:
        """Called at the start of every validation, in eval mode."""
        self.prober = prober
