"""Stop a run whose loss becomes non-finite, with a message about where it happened and what to do.

Such a model is not measured, and no checkpoint of it replaces a good one.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_mem.errors import MetricError, TrainingError
from lit_mem.files.once import Once
from lit_mem.lightning.foreign_callbacks import from_here
from lit_mem.scoring.finite import weight_not_finite

log = logging.getLogger(__name__)

_ADVICE: Final = "lower model.optimizer.init_args.lr or set trainer.gradient_clip_val"
_ADVICE_ON_OTHERS: Final = "lower the learning rate or set the Trainer's gradient_clip_val"
_STEPS_BETWEEN_LOOKS: Final = 50


class _Step(NamedTuple):
    loss: Tensor
    step: int
    epoch: int


class LossWatch:
    """Checks every training loss without stalling the device.

    On a CPU a loss is checked before the optimizer step. On other devices reading it waits for all queued work; so it
    is checked in the next step, which has to wait for the lengths of its texts anyway. Several processes check
    together, every `log_every_n_steps` steps, since one that stopped alone would leave the others hanging.

    With float16 and a gradient scaler, the scaler skips a step whose loss is non-finite, and the next one may be
    finite: that is logged once, and the next validation judges the model.
    """

    def __init__(self) -> None:
        self._unseen: list[_Step] = []
        self._once = Once()

    def begin_step(self, trainer: pl.Trainer) -> None:
        """Check the losses of earlier steps, if due."""
        if trainer.world_size > 1 and len(self._unseen) < (trainer.log_every_n_steps or _STEPS_BETWEEN_LOOKS):  # type: ignore[attr-defined]
            return
        self.look(trainer)

    def add(self, loss: Tensor, trainer: pl.Trainer) -> None:
        """Add the () loss of this step.

        Raises:
            TrainingError: it is not finite, and was checked at once.
        """
        self._unseen.append(_Step(loss.detach(), trainer.global_step + 1, trainer.current_epoch + 1))
        if trainer.world_size == 1 and loss.device.type == "cpu":
            self.look(trainer)

    def look(self, trainer: pl.Trainer) -> None:
        """Check all losses added since the last check; every process must call it.

        Raises:
            TrainingError: one is not finite.
        """
        if not self._unseen:
            return
        steps, self._unseen = self._unseen, []
        finite = torch.stack([step.loss for step in steps]).isfinite().tolist()
        bad = next((step for step, good in zip(steps, finite, strict=True) if not good), None)
        if not trainer.strategy.reduce_boolean_decision(bad is not None, all=False):
            return
        if bad is None:
            what = f"the training loss of another process is not finite, at step {steps[-1].step} or shortly before"
        else:
            what = f"the training loss is {bad.loss.item()} at step {bad.step} (epoch {bad.epoch})"
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            raise TrainingError(f"{what}; {_ADVICE}; {_last_checkpoint(trainer)}")
        if self._once.first():
            log.warning("%s. The gradient scaler skips such a step; this is logged once.", what)


def reject_not_finite(found: str | None, trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Reject the metrics of a pass in which the loss of a text was not finite; every process must call it.

    Args:
        found: description by `not_finite` for this process's texts.
        trainer: trainer of the run.
        module: its trained weights are checked, for the message.

    Raises:
        MetricError: some process had such a text.
    """
    if not trainer.strategy.reduce_boolean_decision(found is not None, all=False):
        return
    what = found or "the model's loss on a text of another process is not finite"
    if trainer.state.fn != "fit":
        when, checkpoint = "", ""
    elif trainer.sanity_checking:
        when, checkpoint = " before training", ""
    else:
        when = f" after step {trainer.global_step} (epoch {trainer.current_epoch + 1})"
        checkpoint = f"; {_last_checkpoint(trainer)}"
    weight = weight_not_finite(module.named_parameters())
    if weight is None:
        why = "its weights are finite, so the forward pass overflows: set trainer.precision to 32-true"
    elif checkpoint:
        why = f"the weights are no longer finite ({weight}): {_ADVICE if from_here(module) else _ADVICE_ON_OTHERS}"
    else:
        why = f"the model was loaded with non-finite weights ({weight})"
    raise MetricError(f"{what}{when}, so the pass cannot be measured; {why}{checkpoint}")


def reject_to_save(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Reject a checkpoint of non-finite weights.

    Raises:
        TrainingError: the weights are not finite.
    """
    weight = weight_not_finite(module.named_parameters())
    if weight is not None:
        raise TrainingError(
            f"the weights are no longer finite at step {trainer.global_step} ({weight}), so no checkpoint of them is "
            f"written; {_ADVICE}; {_last_checkpoint(trainer)}"
        )


def _last_checkpoint(trainer: pl.Trainer) -> str:
    paths = (
        getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        for callback in trainer.checkpoint_callbacks
    )
    path = next((path for path in paths if path), None)
    return "no checkpoint was saved" if path is None else f"the last checkpoint is {path}"
