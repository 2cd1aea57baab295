"""Private training inside a Lightning fit: what the module's hooks hand on to."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_mem.adapters.recorded import RecordedAdapter
from lit_mem.audit.gather import on_rank_zero
from lit_mem.data.members import texts_of
from lit_mem.data.poisson import PoissonBatches, filled
from lit_mem.errors import CheckpointError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.lightning.private_options import refuse_experts, refuse_options, refuse_sampler
from lit_mem.lightning.run_folder import run_folder
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.accountant import Steps, merged
from lit_mem.privacy.carried import ONLY_LATER, spent_before
from lit_mem.privacy.corpus import corpus_digest, same_corpus
from lit_mem.privacy.dpsgd import DPSGD, PrivateTraining, history_of, ledger_of
from lit_mem.privacy.group import MOST_ROWS, group_epsilon
from lit_mem.privacy.ledger import LEDGER, Ledger
from lit_mem.privacy.ledger_lines import Start, new_id
from lit_mem.privacy.randomness import SamplingOff, refuse_dropout_option
from lit_mem.privacy.summed import export, missing
from lit_mem.types import Batch

log = logging.getLogger(__name__)

MORE_LEARNING = (
    "Private training of few texts has much noise for each: expected more training texts, a larger "
    "model.privacy.target_epsilon or model.privacy.batch_size, another trainer.max_epochs (fewer steps have less noise "
    "each, more steps learn longer), or a higher model.optimizer.init_args.lr."
)
"""What to change where a private run has hardly learned."""

FIGURES = ("privacy/epsilon", "privacy/delta", "privacy/noise_multiplier")


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
        training: of the fit that goes on, None outside.
    """

    def __init__(self, options: DPSGD) -> None:
        self.options = options
        self.stream = options.stream()
        self.training: PrivateTraining | None = None
        self._spent: Spent | None = None
        self._unwritten: tuple[Start, ...] = ()  # of dry runs, which have no ledger
        self._before: Ledger | None = None  # of the weights that the fit starts from, on rank zero
        self._unaccounted = False
        self._dry, self._start = False, 0
        self._rows_of_one = 1
        self._sampling: SamplingOff | None = None

    @property
    def batch_size(self) -> int:
        """Texts a step on average, over all processes."""
        return self.options.batch_size

    def setup(self, trainer: pl.Trainer) -> None:
        """Before the training loader is made: refuse what cannot be, and draw a new key.

        What an earlier fit of the same weights has spent is not forgotten.

        Raises:
            ConfigError: an option would break the guarantee, or the weights were trained before without a ledger.
            CheckpointError: their ledger is damaged.
        """
        self.end()
        refuse_options(trainer, getattr(trainer, "datamodule", None))
        refuse_dropout_option(trainer.lightning_module)
        allowed = self.options.allow_unaccounted_start
        before = on_rank_zero(trainer, lambda: spent_before(trainer.lightning_module, allowed))
        self._before, self._unaccounted = (None, False) if before is None else before
        self.stream = RandomStream(trainer.strategy.broadcast(self.options.stream().key))

    def load(self, spent: Spent | None) -> None:
        """Go on from a checkpoint, which kept this.

        Raises:
            CheckpointError: its weights were not trained privately.
        """
        if spent is None:
            raise CheckpointError(
                "its weights were trained without model.privacy, so no noise from here on can hide the texts; expected "
                "a checkpoint of a private run, or none"
            )
        self._spent, self._unwritten = spent, ()

    def begin(self, module: pl.LightningModule, by_text: ByText) -> None:
        """Make ready for the first step: once model and loader are there, and what a checkpoint kept.

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
        self._turn_sampling_off(module)
        trainer.fit_loop.setup_data()
        steps = trainer.estimated_stepping_batches
        refuse_sampler(trainer, PoissonBatches)
        texts = trainer.train_dataloader.sampler.public_size  # type: ignore[union-attr]
        ledger = on_rank_zero(trainer, self._ledger(trainer, texts))
        training = PrivateTraining(self.options, texts, self.stream, ledger)
        before: list[Start] = []
        if self._before is not None and not (ledger is None and self._spent is not None):
            before = missing(self._before.starts, ledger)
        training.history = trainer.strategy.broadcast(merged([*training.history, *(each.steps for each in before)]))
        noise = None
        if self._spent is not None:
            noise = self._spent["noise_multiplier"]
            if self._spent["texts"] != texts:
                raise CheckpointError(
                    f"it is of {self._spent['texts']} training texts, and here are {texts}; a budget is one training "
                    "set's"
                )
            if not training.history:  # without a ledger, as in a dry run
                training.history = history_of(self._spent)
        unwritten, training.unwritten = self._unwritten, () if self._dry else (*before, *self._unwritten)
        training.history = merged([*training.history, *(each.steps for each in unwritten)])
        kept = (ledger is not None and ledger.unaccounted) or bool(self._spent and self._spent.get("unaccounted"))
        training.unaccounted = self._unaccounted or kept
        training.corpus = on_rank_zero(trainer, lambda: "" if ledger is None else _corpus_of(trainer)) or ""
        self._start = training.steps
        training.plan(steps, noise)
        # Each process has computed the same; should that ever fail, they must not part.
        training.noise_multiplier, training.remaining = trainer.strategy.broadcast(
            (training.noise_multiplier, training.remaining)
        )
        if ledger is not None or trainer.world_size > 1:
            on_rank_zero(trainer, training.open_ledger)
        self._unwritten = unwritten if self._dry else ()

        def losses(ids: Tensor, labels: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context():
                return by_text(filled({"input_ids": ids, "labels": labels}, self._rows(trainer)))[0]  # type: ignore[typeddict-item]

        sixteen = any(p.dtype in (torch.bfloat16, torch.float16) for p in module.parameters())
        rounds = sixteen or str(trainer.precision) == "bf16-mixed"
        training.attach(module, losses, tolerance=0.05 if rounds else 1e-3)
        self.training = training
        self._rows_of_one = getattr(getattr(trainer, "datamodule", None), "largest_group", 1)
        self._tell(trainer, training, steps)
        _remark_on(self._before, before, training)
        for logger in trainer.loggers:
            logger.log_metrics(
                {"privacy/delta": training.delta, "privacy/noise_multiplier": training.noise_multiplier}, step=0
            )

    def _turn_sampling_off(self, module: pl.LightningModule) -> None:
        refuse_experts(module, getattr(getattr(module.trainer, "datamodule", None), "batch_size", None))
        loaded = getattr(module, "adapter_path", None) is not None
        self._sampling = SamplingOff(module, loaded or isinstance(getattr(module, "adapter", None), RecordedAdapter))
        if self._sampling.found:
            log.info("Off for private training, since dropout breaks its bound: %s.", self._sampling.summary())

    def _ledger(self, trainer: pl.Trainer, texts: int) -> Callable[[], Ledger | None]:
        """How to open the ledger, on rank zero; every process must call this."""
        dry = self._dry
        # That of rank zero, as only its state has a ledger's path, and `run_folder` is for all ranks together.
        goes_on: bool = trainer.strategy.broadcast(self._spent is not None and bool(self._spent["ledger"]))
        if dry or goes_on or self.options.ledger is not None:
            path = Path(self.options.ledger or LEDGER)
        else:
            path = run_folder(trainer) / LEDGER

        def opened() -> Ledger | None:
            if dry:
                return None
            if self._spent is not None and goes_on:
                checkpoint = None if trainer.ckpt_path is None else str(trainer.ckpt_path)
                ledger = ledger_of(self._spent, self.options.ledger, checkpoint)
            else:
                ledger = Ledger(path)
            ledger.check(texts)
            if ledger.unchained:
                log.warning(
                    "The privacy ledger %s is unchained up to line %d, as an earlier version wrote it: whether those "
                    "lines were changed cannot be checked.", ledger.path, ledger.unchained,
                )  # fmt: skip
            return ledger

        return opened

    def _tell(self, trainer: pl.Trainer, training: PrivateTraining, steps: float) -> None:
        options = self.options
        log.info(
            "Private training: each of %d texts is in a step with probability %.4g, its gradient clipped to norm %g; "
            "noise multiplier %.4g, delta %.3g.",
            training.texts, training.sample_rate, options.clipping_norm, training.noise_multiplier, training.delta,
        )  # fmt: skip
        if training.steps:
            log.warning(
                "%d steps were taken before%s and count too: epsilon is %.4g at the start.",
                training.steps, f" ({training.ledger.path})" if training.ledger else "", training.epsilon(),
            )  # fmt: skip
        if training.remaining is not None and training.remaining < steps:
            log.warning(
                "Epsilon %g allows %d of the %g steps to come; training ends then.",
                options.target_epsilon, training.remaining, steps,
            )  # fmt: skip
        log.info(
            "Epsilon bounds what the trained weights tell of one row of the training set. It does not cover figures of "
            "members, train/loss, and what is decided by them: when training stops, which checkpoint is the best."
        )
        if math.isfinite(steps):
            planned = int(steps) if training.remaining is None else min(int(steps), training.remaining)
            more = Steps(training.noise_multiplier, training.sample_rate, planned)
            if trainer.is_global_zero:
                self._log_group(training, [*training.history, more], f"After all {planned} steps planned")
        if options.noise_multiplier == 0:
            log.warning("model.privacy.noise_multiplier is 0: gradients are clipped, and nothing is private.")
        if options.test_seed is not None:
            log.warning("model.privacy.test_seed is set: anyone can compute the noise, and nothing is private.")

    def _log_group(self, training: PrivateTraining, history: Sequence[Steps], when: str) -> None:
        if (k := self._rows_of_one) > MOST_ROWS:
            log.info(
                "%s, a person with up to %d rows (the largest group): epsilon is not computed above %d rows, where it "
                "costs much and is mostly too large to be of use.",
                when, k, MOST_ROWS,
            )  # fmt: skip
        elif k > 1:
            log.info(
                "%s, a person with up to %d rows (the largest group): epsilon <= %.4g at delta %.3g.",
                when, k, group_epsilon(history, training.delta, k), training.delta,
            )  # fmt: skip

    def log_spent(self, trainer: pl.Trainer) -> None:
        """Log on rank zero what a fit that has ended has spent, for one row and for the person with the most rows."""
        training = self.training
        if training is not None and training.steps and trainer.is_global_zero:
            log.info(
                "Private training: %d steps, epsilon <= %.4g at delta %.3g for one row.",
                training.steps, training.epsilon(), training.delta,
            )  # fmt: skip
            self._log_group(training, training.history, "Private training")
            if training.unaccounted:
                log.warning("%s", ONLY_LATER)
            log.info(
                "Epsilon is of this ledger (%s). Other private runs on the same texts spend as well, and it adds up: "
                "python train.py privacy <their folders>.", "none" if training.ledger is None else training.ledger.path,
            )  # fmt: skip

    def export_ledger(self, folder: Path) -> int:
        """Write what is spent beside an exported adapter; on the process that has the ledger.

        Returns:
            How many steps that are; 0 where nothing is written.

        Raises:
            OSError: it cannot be written.
        """
        if self.training is None or self.training.ledger is None:
            return 0
        export(self.training.ledger, folder / LEDGER)
        return self.training.ledger.steps

    # -- steps ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> bool:
        """Whether no further step may be taken."""
        return self.training is not None and self.training.remaining == 0

    def step(self, module: pl.LightningModule, batches: Sequence[Batch], by_text: ByText) -> tuple[Tensor, int]:
        """Gradients of a step's texts: clipped and summed.

        Returns:
            Mean loss a token, () float32 without gradient, 0 of no text; and the number of texts.
        """
        assert self.training is not None
        rows = self._rows(module.trainer)
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

    @staticmethod
    def _rows(trainer: pl.Trainer) -> int:
        """How many texts go through the model together, at most."""
        return int(getattr(getattr(trainer.train_dataloader, "dataset", None), "batch_size", 0))

    def update(self, module: pl.LightningModule) -> None:
        """Charge, add noise, and let the optimizer take the step."""
        assert self.training is not None
        trainer = module.trainer
        several = trainer.world_size > 1

        def total(tensor: Tensor) -> Tensor:
            summed: Tensor = trainer.strategy.reduce(tensor, reduce_op="sum")  # type: ignore[assignment]
            return summed

        self.training.finish_step(trainer.global_step, total if several else None, noisy=trainer.is_global_zero)
        optimizer: Any = module.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        schedule: Any = module.lr_schedulers()
        if schedule is not None:
            schedule.step()
        if self.spent:
            log.info("Step %d was the last that epsilon allows.", trainer.global_step)
            trainer.should_stop = True
            trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = 0, None

    def figures(self) -> dict[str, float]:
        """What is logged at every validation."""
        return {} if self.training is None else {"privacy/epsilon": self.training.epsilon()}

    @property
    def note(self) -> str:
        """What epsilon leaves out; "" where there is nothing, or outside a fit."""
        return ONLY_LATER if self.training is not None and self.training.unaccounted else ""

    def claim(self) -> tuple[float, float] | None:
        """ε and δ to which training has kept so far; None outside a fit."""
        return None if self.training is None else (self.training.epsilon(), self.training.delta)

    def state(self) -> Spent | None:
        """For the checkpoint."""
        return self._spent if self.training is None else self.training.state()

    def end(self) -> None:
        """Leave the model as any other."""
        if self._sampling is not None:
            self._sampling.restore()
            self._sampling = None
        if self.training is not None:
            if self._dry:
                number = self.training.steps - self._start
                steps = Steps(self.training.noise_multiplier, self.training.sample_rate, number)
                new = Start(new_id(), self.training.texts, steps, unaccounted=self.training.unaccounted)
                self._unwritten = (*self._unwritten, *([new] if number else []))
            else:
                self._spent = self.training.state()
            self.training.close()
            self.training = None


def _corpus_of(trainer: pl.Trainer) -> str:
    """Digest of the training texts; "" where the data module does not give them, or there is no key."""
    sides: Any = getattr(getattr(trainer, "datamodule", None), "sides", None)
    if sides is None or (found := sides()) is None:
        return ""
    try:
        return corpus_digest(texts_of(found.members))
    except OSError as error:
        log.warning("The privacy ledger gets no digest of the training set: %s: %s.", error.filename, error.strerror)
        return ""


def _remark_on(source: Ledger | None, before: Sequence[Start], training: PrivateTraining) -> None:
    """Log which of the steps so far were taken on other texts, or before the weights came here."""
    if source is not None and before:
        log.warning(
            "%d of these steps trained the weights that this run starts from (%s).",
            sum(start.steps.number for start in before), source.path,
        )  # fmt: skip
    earlier = before if training.ledger is None else training.ledger.starts[:-1]
    here, corpus = training.texts, training.corpus
    others = [start for start in earlier if start.texts != here or same_corpus(start.corpus, corpus) is False]
    if others:
        log.warning(
            "%d earlier steps were taken on another training set. It may have texts in common with this one, so all "
            "steps count: epsilon holds for a text of both, and that of a text of one set alone is lower.",
            sum(start.steps.number for start in others),
        )  # fmt: skip
    if training.unaccounted:
        log.warning("%s", ONLY_LATER)


class EndOnException(pl.Callback):
    """Leaves the model as any other where a fit ends by an exception: Lightning calls no `teardown` then."""

    def __init__(self, fit: PrivateFit) -> None:
        self.fit = fit

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore what was turned off."""
        self.fit.end()
