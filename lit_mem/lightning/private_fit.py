"""Private training inside a Lightning fit, called from the module's hooks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_mem.audit.gather import on_rank_zero
from lit_mem.data.poisson import filled
from lit_mem.errors import CheckpointError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.lightning import private_start
from lit_mem.lightning.private_group import largest_group, of_group
from lit_mem.lightning.private_log import log_earlier, log_spent, log_start
from lit_mem.lightning.private_options import reject_options
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.carried import ONLY_LATER, spent_before
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.privacy.ledger import LEDGER
from lit_mem.privacy.randomness import SamplingOff, reject_dropout_option
from lit_mem.privacy.summed import export
from lit_mem.privacy.training import PrivateTraining
from lit_mem.types import Batch

log = logging.getLogger(__name__)


class ByText(Protocol):
    """Loss of each text of a batch, independent of the others: (B,) for training, (B,) sums to log, (B,) tokens."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the losses of this batch."""
        ...


class PrivateFit:
    """Steps of DP-SGD with a module's own optimizer and schedule, on one process or with `ddp`.

    A step takes a list of batches, which `lit_mem.data.poisson.StepBatches` makes from one Poisson draw; an empty draw
    gives none. Optimizer, schedule and Lightning's counters see one ordinary step.

    Args:
        options: options of private training.

    Attributes:
        stream: random stream of batches and noise; a new one for each fit, the same on every process.
        training: private training of the current fit; None outside.
    """

    def __init__(self, options: DPSGD) -> None:
        self.options = options
        self.stream = options.stream()
        self.training: PrivateTraining | None = None
        self._before = private_start.Before()
        self._dry, self._start = False, 0
        self._rows_of_one = 1
        self._sampling: SamplingOff | None = None

    @property
    def batch_size(self) -> int:
        """Average number of texts per step, over all processes."""
        return self.options.batch_size

    def setup(self, trainer: pl.Trainer) -> None:
        """Before the training loader is made: reject incompatible options, and draw a new key.

        The budget spent by an earlier fit of the same weights still counts.

        Raises:
            ConfigError: an option would break the guarantee, or the weights were trained before without a ledger.
            CheckpointError: their ledger is damaged.
        """
        self.end()
        reject_options(trainer, getattr(trainer, "datamodule", None))
        reject_dropout_option(trainer.lightning_module)
        allowed = self.options.allow_unaccounted_start
        before = on_rank_zero(trainer, lambda: spent_before(trainer.lightning_module, allowed))
        self._before.weights, self._before.unaccounted = before or (None, False)
        self.stream = RandomStream(trainer.strategy.broadcast(self.options.stream().key))

    def load(self, spent: Spent | None) -> None:
        """Restore the spent budget from a checkpoint.

        Raises:
            CheckpointError: its weights were not trained privately.
        """
        if spent is None:
            raise CheckpointError(
                "its weights were trained without model.privacy, so adding noise from here on cannot protect the "
                "texts; expected a checkpoint of a private run, or none"
            )
        self._before.spent, self._before.dry = spent, ()

    def begin(self, module: pl.LightningModule, by_text: ByText) -> None:
        """Prepare the first step, once model, loader and checkpoint state are available.

        Raises:
            LitMemError: private training cannot start, on every process; the model is then restored.
        """
        try:
            self._begin(module, by_text)
        except BaseException:
            self.end()
            raise

    def _begin(self, module: pl.LightningModule, by_text: ByText) -> None:
        trainer = module.trainer
        self._dry = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        self._sampling = private_start.sampling_off(module)
        training, earlier, steps = private_start.planned(self.options, self.stream, trainer, self._before, self._dry)
        budget = training.budget
        self._start = budget.steps

        def losses(ids: Tensor, labels: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context():
                return by_text(filled({"input_ids": ids, "labels": labels}, _rows(trainer)))[0]  # type: ignore[typeddict-item]

        training.attach(module, losses, tolerance=0.05 if _in_16_bits(module) else 1e-3)
        self.training = training
        self._rows_of_one = largest_group(trainer)
        log_start(budget, steps, self._rows_of_one, trainer.is_global_zero)
        log_earlier(self._before.weights, earlier, budget)
        for logger in trainer.loggers:
            logger.log_metrics(
                {"privacy/delta": budget.delta, "privacy/noise_multiplier": budget.noise_multiplier}, step=0
            )

    def log_spent(self, trainer: pl.Trainer) -> None:
        """Log on rank zero the budget spent by a finished fit, for one row and for the person with the most rows."""
        if self.training is not None and self.training.budget.steps and trainer.is_global_zero:
            log_spent(self.training.budget, self._rows_of_one)

    def export_ledger(self, folder: Path) -> int:
        """Write the spent budget beside an exported adapter, on the process that has the ledger.

        Returns:
            Number of steps written; 0 if nothing is written.

        Raises:
            OSError: it cannot be written.
        """
        ledger = None if self.training is None else self.training.budget.ledger
        if ledger is None:
            return 0
        export(ledger, folder / LEDGER)
        return ledger.steps

    # -- steps ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> bool:
        """Whether the budget allows no further step."""
        return self.training is not None and self.training.budget.remaining == 0

    def step(self, module: pl.LightningModule, batches: Sequence[Batch], by_text: ByText) -> tuple[Tensor, int]:
        """Accumulate the clipped gradients of a step's texts.

        Returns:
            Mean loss per token, () float32 without gradient, 0 without texts; and the number of texts.
        """
        assert self.training is not None
        rows = _rows(module.trainer)
        shown = torch.zeros((), device=module.device)
        tokens = torch.zeros((), device=module.device)
        texts = 0
        for batch in batches:

            def losses(batch: Batch = batch) -> Tensor:
                nonlocal shown, tokens
                trained, total, count = by_text(filled(batch, rows))
                shown, tokens = shown + total.sum(), tokens + count.sum()
                return trained

            self.training.accumulate(losses)
            texts += len(batch["input_ids"])
        return shown / tokens.clamp(min=1), texts

    def update(self, module: pl.LightningModule) -> None:
        """Charge the budget, add noise, and take the optimizer step."""
        assert self.training is not None
        trainer = module.trainer
        several = trainer.world_size > 1

        def total(tensor: Tensor) -> Tensor:
            summed: Tensor = trainer.strategy.reduce(tensor, reduce_op="sum")  # type: ignore[assignment]
            return summed

        self.training.finish_step(trainer.global_step, total if several else None, noisy=trainer.is_global_zero)
        _take_step(module)
        if self.spent:
            log.info("Step %d was the last that epsilon allows.", trainer.global_step)
            trainer.should_stop = True
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = 0, None

    def metrics(self) -> dict[str, float]:
        """Metrics logged at every validation: epsilon and delta, for one row and for the person with the most rows."""
        if self.training is None:
            return {}
        budget = self.training.budget
        spent = {"privacy/epsilon": budget.epsilon(), "privacy/delta": budget.delta}
        return spent | of_group(budget.history, budget.delta, self._rows_of_one)

    @property
    def note(self) -> str:
        """A note on what epsilon does not cover; "" without one, or outside a fit."""
        return ONLY_LATER if self.training is not None and self.training.budget.unaccounted else ""

    def claim(self) -> tuple[float, float] | None:
        """ε and δ guaranteed by training so far; None outside a fit."""
        return None if self.training is None else (self.training.budget.epsilon(), self.training.budget.delta)

    def state(self) -> Spent | None:
        """State for the checkpoint."""
        return self._before.spent if self.training is None else self.training.budget.state()

    def end(self) -> None:
        """Restore the model, and keep the spent budget."""
        if self._sampling is not None:
            self._sampling.restore()
            self._sampling = None
        if self.training is not None:
            self._before.add(self.training.budget, self._start, self._dry)
            self.training.close()
            self.training = None


def _in_16_bits(module: pl.LightningModule) -> bool:
    """Whether anything is computed in 16 bits, which rounds gradients."""
    sixteen = any(p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters())
    return sixteen or str(module.trainer.precision) == "bf16-mixed"


def _rows(trainer: pl.Trainer) -> int:
    """Maximum number of texts per forward pass."""
    return int(getattr(getattr(trainer.train_dataloader, "dataset", None), "batch_size", 0))


def _take_step(module: pl.LightningModule) -> None:
    """Step the optimizer and its schedule."""
    optimizer: Any = module.optimizers()
    optimizer.step()
    optimizer.zero_grad()
    schedule: Any = module.lr_schedulers()
    if schedule is not None:
        schedule.step()


class EndOnException(pl.Callback):
    """Restores the model if a fit ends with an exception: Lightning calls no `teardown` then."""

    def __init__(self, fit: PrivateFit) -> None:
        self.fit = fit

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore what was turned off."""
        self.fit.end()
