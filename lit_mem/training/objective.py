"""The training objective: every token of every text, or fewer, to reduce memorization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from lit_mem.errors import check_range
from lit_mem.training.goldfish import goldfish_dropped
from lit_mem.types import IGNORED, Batch


class Losses(Protocol):
    """What the objective needs of a model's scorer (`lit_mem.scoring.scorer.TokenScorer`)."""

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over the labelled tokens of a batch, in nats, () float32."""

    def text_losses(self, batch: Batch, packed: bool = False) -> tuple[Tensor, Tensor]:
        """(B,) loss sums over each text's labelled tokens, and (B,) token counts."""


@dataclass
class TrainingLoss:
    """Which tokens and texts contribute a gradient. By default all do; measures always cover all tokens.

    Attributes:
        goldfish_k: drop one in this many tokens, chosen by a hash of the tokens before each, so that the same passage
            has the same gaps in every text (Hans et al. 2024, arXiv 2406.10209: 4); None: drop none.
        goldfish_context: number of preceding tokens in the hash.
        floor: a text whose mean loss per token, in nats, is below this contributes no gradient: the objective is
            max(loss, floor) per text. None: no floor. Related to flooding (Ishida et al. 2020, arXiv 2002.08709: of the
            batch's mean), iFlood (Xie et al. 2022: of each example's loss) and RelaxLoss (Chen et al. 2022, arXiv
            2207.05801: against membership inference); all three push a loss below the level up again, this does not.
    """

    goldfish_k: int | None = None
    goldfish_context: int = 13
    floor: float | None = None

    def __post_init__(self) -> None:
        check_range("model.loss.goldfish_k", self.goldfish_k, at_least=2, or_null=True)
        check_range("model.loss.goldfish_context", self.goldfish_context, at_least=1)
        check_range("model.loss.floor", self.floor, above=0, or_null=True)

    def trained(self, batch: Batch) -> Batch:
        """The batch with labels only on tokens that are trained on."""
        if self.goldfish_k is None:
            return batch
        dropped = goldfish_dropped(batch["input_ids"], self.goldfish_k, self.goldfish_context)
        return {**batch, "labels": batch["labels"].masked_fill(dropped, IGNORED)}

    def __call__(self, scorer: Losses, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to train on, and the loss to log: mean over the trained tokens of all texts, in nats, () float32.

        Both are equal without a floor.
        """
        batch = self.trained(batch)
        if self.floor is None:
            loss = scorer.loss(batch)
            return loss, loss
        total, count = scorer.text_losses(batch, packed=True)
        trained = (total * self._above(total, count)).sum() / count.sum().clamp(min=1)
        return trained, (total.detach().sum() / count.sum().clamp(min=1))

    def by_text(self, scorer: Losses, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """For private training: the mean loss of each text, independent of the rest of the batch.

        Returns:
            (B,) float32 to train on; (B,) float32 sum over trained tokens, to log; (B,) int64 number of trained tokens.
        """
        total, count = scorer.text_losses(self.trained(batch))
        return self._above(total, count) * total / count.clamp(min=1), total.detach(), count

    def _above(self, total: Tensor, count: Tensor) -> Tensor:
        """(B,) float32: 1 for texts that are trained on, 0 for those below the floor."""
        if self.floor is None:
            return total.new_ones(total.shape)
        return (total.detach() >= self.floor * count).to(total.dtype)
