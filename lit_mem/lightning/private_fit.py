"""Private training inside a Lightning fit: what the module's hooks hand on to."""

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
from lit_mem.lightning.private_options import refuse_options
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
    """The loss of each text of a batch, whatever the others are: (B,) to train on, (B,) sums to show, (B,) tokens."""

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of this batch."""
        ...


class PrivateFit:
    """Steps of DP-SGD with a module's own optimizer and schedule, on one process or with `ddp`.

    A step takes a list of batches, which `lit_mem.data.poisson.StepBatches` makes of one Poisson draw; of an empty
    draw, none. Optimizer, schedule and Lightning's counters see one ordinary step.

    Args:
        options: how.

    Attributes:
        stream: of batches and noise; another for each fit, the same on every process.
        training: of the current fit, None outside.
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
        """Texts a step on average, over all processes."""
        return self.options.batch_size

    def setup(self, trainer: pl.Trainer) -> None:
        """Before the training loader is made: reject options that do not fit, and draw a new key.

        What an earlier fit of the same weights has spent still counts.

        Raises:
            ConfigError: an option would break the guarantee, or the weights were trained before without a ledger.
            CheckpointError: their ledger is damaged.
        """
        self.end()
        refuse_options(trainer, getattr(trainer, "datamodule", None))
        reject_dropout_option(trainer.lightning_module)
        allowed = self.options.allow_unaccounted_start
        before = on_rank_zero(trainer, lambda: spent_before(trainer.lightning_module, allowed))
        self._before.weights, self._before.unaccounted = before or (None, False)
        self.stream = RandomStream(trainer.strategy.broadcast(self.options.stream().key))

    def load(self, spent: Spent | None) -> None:
        """Resume from a checkpoint, which kept this.

        Raises:
            CheckpointError: its weights were not trained privately.
        """
        if spent is None:
            raise CheckpointError(
                "its weights were trained without model.privacy, so no noise from here on can hide the texts; expected "
                "a checkpoint of a private run, or none"
            )
        self._before.spent, self._before.dry = spent, ()

    def begin(self, module: pl.LightningModule, by_text: ByText) -> None:
        """Prepare the first step: once model and loader are there, and what a checkpoint kept.

        Raises:
            LitMemError: of whatever stands in the way, on every process; the model is then as before.
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
        """Log on rank zero what a fit that has ended has spent, for one row and for the person with the most rows."""
        if self.training is not None and self.training.budget.steps and trainer.is_global_zero:
            log_spent(self.training.budget, self._rows_of_one)

    def export_ledger(self, folder: Path) -> int:
        """Write what is spent beside an exported adapter; on the process that has the ledger.

        Returns:
            How many steps that are; 0 where nothing is written.

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
        """Whether no further step may be taken."""
        return self.training is not None and self.training.budget.remaining == 0

    def step(self, module: pl.LightningModule, batches: Sequence[Batch], by_text: ByText) -> tuple[Tensor, int]:
        """Gradients of a step's texts: clipped and summed.

        Returns:
            Mean loss a token, () float32 without gradient, 0 of no text; and the number of texts.
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
        """Charge, add noise, and let the optimizer take the step."""
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
        """What is logged at every validation: epsilon and delta, for one row and for the person with the most rows."""
        if self.training is None:
            return {}
        budget = self.training.budget
        spent = {"privacy/epsilon": budget.epsilon(), "privacy/delta": budget.delta}
        return spent | of_group(budget.history, budget.delta, self._rows_of_one)

    @property
    def note(self) -> str:
        """What epsilon leaves out; "" where there is nothing, or outside a fit."""
        return ONLY_LATER if self.training is not None and self.training.budget.unaccounted else ""

    def claim(self) -> tuple[float, float] | None:
        """ε and δ to which training has kept so far; None outside a fit."""
        return None if self.training is None else (self.training.budget.epsilon(), self.training.budget.delta)

    def state(self) -> Spent | None:
        """For the checkpoint."""
        return self._before.spent if self.training is None else self.training.budget.state()

    def end(self) -> None:
        """Leave the model as any other."""
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
    """How many texts go through the model together, at most."""
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
    """Leaves the model as any other where a fit ends by an exception: Lightning calls no `teardown` then."""

    def __init__(self, fit: PrivateFit) -> None:
        self.fit = fit

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore what was turned off."""
        self.fit.end()
