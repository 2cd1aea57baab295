"""The held-out loss as a measure, for runs without a trainer of this package."""

from __future__ import annotations

from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.measures.perplexity import mean_loss
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable
from lit_mem.types import Batch, TokenScores


class HeldOutLoss(Measure):
    """Logs `val/loss` (`test/loss` in a test): the held-out texts' loss in nats per token, token-weighted."""

    def __init__(self) -> None:
        self._table = ExampleTable(["logprob", "n_tokens"])

    def names(self) -> list[str]:
        """The loss."""
        return ["val/loss"]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._table.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep each example's sums."""
        values = {"logprob": scores.total_logprob, "n_tokens": scores.n_tokens}
        self._table.update(scores.example_id, scores.member, values)

    def compute(self, run: Pass) -> Result:
        """The loss; none without held-out texts."""
        loss = mean_loss(self._table.compute().nonmembers())
        return Result({} if loss is None else {"test/loss" if run.stage == "test" else "val/loss": loss})
