"""The held-out loss of a validation or test, and warnings about training without improvement or validation."""

from __future__ import annotations

import logging
from typing import Final

import lightning.pytorch as pl

from lit_mem.audit.table import ExampleTable
from lit_mem.lightning.auditing import whole_check
from lit_mem.lightning.learning import Learning
from lit_mem.lightning.loss_watch import reject_not_finite
from lit_mem.scoring.finite import not_finite
from lit_mem.types import Batch, TokenScores, holds_canaries

log = logging.getLogger(__name__)

_MORE_LEARNING: Final = (
    "Increase trainer.max_epochs, model.optimizer.init_args.lr, or the size of the adapter (model.adapter)."
)
_MORE_PRIVATE_LEARNING: Final = (
    "Private training on few texts adds much noise for each: use more training texts, a larger "
    "model.privacy.target_epsilon or model.privacy.batch_size, another trainer.max_epochs (fewer steps have less noise "
    "each, more steps train longer), or a higher model.optimizer.init_args.lr."
)


class HeldOutLoss:
    """Computes the token-weighted held-out loss of a pass; canaries are left out.

    Args:
        learning: compares the losses of each validation with those before training.
    """

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._table = ExampleTable(["logprob", "n_tokens"])
        self._not_finite: str | None = None
        self._validated_at = 0

    def begin(self) -> None:
        """Start a pass."""
        self._table.reset()
        self._not_finite = None

    def take(self, scores: TokenScores, batch: Batch) -> None:
        """Add the scores of a batch."""
        self._not_finite = self._not_finite or not_finite(scores, batch)
        if not holds_canaries(batch):
            columns = {"logprob": scores.total_logprob, "n_tokens": scores.n_tokens}
            self._table.update(scores.example_id.cpu(), scores.member.cpu(), columns)

    def metrics(self, testing: bool) -> dict[str, float]:
        """`val/loss` or `test/loss` in nats per token; {} without held-out texts. Every process must call it."""
        table = self._table.compute().nonmembers()
        if not len(table):
            return {}
        loss = -table["logprob"].sum() / table["n_tokens"].sum()
        return {"test/loss" if testing else "val/loss": loss.float().item()}

    def end(self, module: pl.LightningModule) -> None:
        """Log the loss of the pass, and compare its texts' losses with those before training.

        Raises:
            MetricError: the loss of a text is not finite.
        """
        trainer = module.trainer
        reject_not_finite(self._not_finite, trainer, module)
        module.log_dict(self.metrics(bool(trainer.testing)), prog_bar=True, sync_dist=True)
        if trainer.state.fn == "fit":
            table = self._table.compute()
            if not trainer.sanity_checking:
                self._learning.note(table)
            elif whole_check(trainer) and not trainer.global_step:
                self._learning.start(table)
        self._table.reset()

    def validated(self, trainer: pl.Trainer) -> None:
        """Mark the current step as validated."""
        self._validated_at = trainer.global_step

    def warn(self, trainer: pl.Trainer, private: bool) -> None:
        """After training, warn if the model hardly changed, did not improve, or was not validated at the end.

        Args:
            trainer: trainer of the fit that ends.
            private: whether training was differentially private, for which the advice differs.
        """
        if self._learning.hardly_changed:
            log.warning("%s. %s", self._learning.line(), _MORE_PRIVATE_LEARNING if private else _MORE_LEARNING)
        elif self._learning.not_improved:
            log.warning("%s.", self._learning.line())
        unseen = trainer.global_step - self._validated_at
        if unseen and trainer.enable_validation:
            log.warning(
                "The last %d of %d training steps came after the last validation, so no metric covers them: "
                "set trainer.val_check_interval or trainer.check_val_every_n_epoch.",
                unseen, trainer.global_step,
            )  # fmt: skip
