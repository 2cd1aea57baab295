"""The contract of a membership inference attack."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from lit_mem.types import Needs, Prober, TokenScores


class Attack(ABC):
    """Gives each example one number, higher where it looks more like a member of the fine-tuning set.

    Every attack must be finite on a single scored token and must not depend on padding or on the other
    examples of a batch. An example without a scored token scores 0, and is left out of all figures.

    Attributes:
        needs: what it reads of `TokenScores` that is not always there.
    """

    needs: Needs = Needs()

    @abstractmethod
    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 scores of the batch's examples, on the CPU, higher = more member-like."""

    def over_set(self, score: Tensor, member: Tensor) -> Tensor:
        """The scores of a whole set, once all are known; most attacks leave them as they are.

        Args:
            score: (N,) float64, what the attack gave each example.
            member: (N,) bool.
        """
        return score


class ProbingAttack(Attack):
    """An attack that asks the model more than the scoring pass told, at the price of further passes.

    It reads the tokens in `scores.batch`, and asks `self.prober`, which is set before the first batch of every
    validation. An example that it cannot judge, as its text is part of the question, scores NaN and is left out of
    this attack's figures.
    """

    prober: Prober

    def prepare(self, prober: Prober) -> None:
        """Called at the start of every validation, in eval mode."""
        self.prober = prober
