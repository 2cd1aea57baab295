"""The held-out loss as a measure, where no module of this package logs it."""

from __future__ import annotations

from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.subject import Subject
from lit_mem.lightning.heldout import HeldOutLoss
from lit_mem.lightning.learning import Learning
from lit_mem.types import Batch, TokenScores


class OwnLoss(Measure):
    """Logs `val/loss` (`test/loss` in a test): the held-out texts' loss in nats a token."""

    def __init__(self) -> None:
        self._loss = HeldOutLoss(Learning())

    def names(self) -> list[str]:
        """The loss."""
        return ["val/loss"]

    def begin(self, subject: Subject) -> None:
        """Drop the last pass."""
        self._loss.begin()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep each example's sums."""
        self._loss.take(scores, batch)

    def compute(self, run: Pass) -> Result:
        """The loss, weighted by token."""
        return Result(self._loss.metrics(run.stage == "test"))
