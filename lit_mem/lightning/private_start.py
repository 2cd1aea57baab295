"""Start a private fit: open its ledger, count earlier steps, and choose the noise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lit_mem.adapters.recorded import RecordedAdapter
from lit_mem.audit.gather import on_rank_zero
from lit_mem.data.members import texts_of
from lit_mem.data.poisson import PoissonBatches
from lit_mem.errors import CheckpointError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.lightning.private_options import reject_experts, reject_sampler
from lit_mem.lightning.run_folder import run_folder
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.accountant import Steps, merged
from lit_mem.privacy.budget import Budget
from lit_mem.privacy.corpus import corpus_digest
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.privacy.ledger import LEDGER, Ledger
from lit_mem.privacy.ledger_lines import Start, new_id
from lit_mem.privacy.randomness import SamplingOff
from lit_mem.privacy.resumed import history_of, ledger_of
from lit_mem.privacy.summed import missing
from lit_mem.privacy.training import PrivateTraining

log = logging.getLogger(__name__)


@dataclass
class Before:
    """The privacy budget spent before a fit.

    Attributes:
        spent: budget stored in the resumed checkpoint; None for a new run.
        dry: steps of dry runs of the same weights, which have no ledger.
        weights: ledger of the weights that the fit starts from, on rank zero; None without one.
        unaccounted: whether these weights had training that it does not cover.
    """

    spent: Spent | None = None
    dry: tuple[Start, ...] = ()
    weights: Ledger | None = None
    unaccounted: bool = False

    def add(self, budget: Budget, since: int, dry: bool) -> None:
        """Add the budget spent by a fit.

        Args:
            budget: budget of the fit.
            since: number of steps charged when it began.
            dry: whether it was a dry run.
        """
        if not dry:
            self.spent = budget.state()
        elif number := budget.steps - since:
            steps = Steps(budget.noise_multiplier, budget.sample_rate, number)
            self.dry = (*self.dry, Start(new_id(), budget.texts, steps, unaccounted=budget.unaccounted))


def planned(
    options: DPSGD, stream: RandomStream, trainer: pl.Trainer, before: Before, dry: bool
) -> tuple[PrivateTraining, list[Start], float]:
    """Set up private training: choose its noise and open its ledger; every process must call it.

    Args:
        options: options of private training.
        stream: random stream of the noise, not shared with other fits.
        trainer: trainer of the run.
        before: budget spent before.
        dry: whether it is a dry run.

    Returns:
        The training; the steps that trained the initial weights and were missing from its ledger; and
        the number of planned steps, which may be infinite.

    Raises:
        LitMemError: the budget, the ledger or the training loader does not allow it.
        OSError: the ledger cannot be written.
    """
    trainer.fit_loop.setup_data()
    steps = trainer.estimated_stepping_batches
    reject_sampler(trainer, PoissonBatches)
    texts = trainer.train_dataloader.sampler.public_size  # type: ignore[union-attr]
    ledger = on_rank_zero(trainer, opening(trainer, texts, options.ledger, before.spent, dry))
    training = PrivateTraining(options, texts, stream, ledger)
    earlier = _count_before(training.budget, before, trainer, dry)
    _plan(training.budget, steps, before.spent, trainer)
    before.dry = before.dry if dry else ()
    return training, earlier, steps


def sampling_off(module: pl.LightningModule) -> SamplingOff:
    """Turn off randomness in the forward pass, such as dropout.

    Raises:
        ConfigError: that is not possible, or the model is a mixture of experts that processes several texts at a time.
    """
    reject_experts(module, getattr(getattr(module.trainer, "datamodule", None), "batch_size", None))
    loaded = getattr(module, "adapter_path", None) is not None
    sampling = SamplingOff(module, loaded or isinstance(getattr(module, "adapter", None), RecordedAdapter))
    if sampling.found:
        log.info("Turned off for private training, since dropout breaks its bound: %s.", sampling.summary())
    return sampling


def opening(
    trainer: pl.Trainer, texts: int, given: str | None, spent: Spent | None, dry: bool
) -> Callable[[], Ledger | None]:
    """A function that opens the ledger, to call on rank zero; every process must call this.

    Args:
        trainer: trainer of the run.
        texts: N.
        given: `model.privacy.ledger`.
        spent: budget stored in the resumed checkpoint; None for a new run.
        dry: whether it is a dry run, which has no ledger.
    """
    # From rank zero, as only its state has a ledger's path, and `run_folder` is collective.
    resumes: bool = trainer.strategy.broadcast(spent is not None and bool(spent["ledger"]))
    path = Path(given or LEDGER) if dry or resumes or given is not None else run_folder(trainer) / LEDGER

    def opened() -> Ledger | None:
        if dry:
            return None
        if spent is not None and resumes:
            checkpoint = None if trainer.ckpt_path is None else str(trainer.ckpt_path)
            ledger = ledger_of(spent, given, checkpoint)
        else:
            ledger = Ledger(path)
        ledger.check(texts)
        if ledger.unchained:
            log.warning(
                "The privacy ledger %s has no hash chain up to line %d, as an earlier version wrote it: it cannot be "
                "checked whether those lines were changed.", ledger.path, ledger.unchained,
            )  # fmt: skip
        return ledger

    return opened


def _count_before(budget: Budget, before: Before, trainer: pl.Trainer, dry: bool) -> list[Start]:
    """Add earlier steps to a budget; returns the second value of `planned`."""
    spent, ledger, texts = before.spent, budget.ledger, budget.texts
    starts: list[Start] = []
    if before.weights is not None and not (ledger is None and spent is not None):
        starts = missing(before.weights.starts, ledger)
    budget.history = trainer.strategy.broadcast(merged([*budget.history, *(each.steps for each in starts)]))
    if spent is not None:
        if spent["texts"] != texts:
            raise CheckpointError(
                f"it belongs to {spent['texts']} training texts, but this run has {texts}; a budget is for one set"
            )
        if not budget.history:  # without a ledger, as in a dry run
            budget.history = history_of(spent)
    budget.unwritten = () if dry else (*starts, *before.dry)
    budget.history = merged([*budget.history, *(each.steps for each in before.dry)])
    kept = (ledger is not None and ledger.unaccounted) or bool(spent and spent.get("unaccounted"))
    budget.unaccounted = before.unaccounted or kept
    budget.corpus = on_rank_zero(trainer, lambda: "" if ledger is None else _corpus_of(trainer)) or ""
    return starts


def _plan(budget: Budget, steps: float, spent: Spent | None, trainer: pl.Trainer) -> None:
    """Choose the noise of the planned steps, and write the ledger's first lines."""
    budget.plan(steps, None if spent is None else spent["noise_multiplier"])
    # All processes compute the same; broadcasting keeps them together even if that fails.
    budget.noise_multiplier, budget.remaining = trainer.strategy.broadcast((budget.noise_multiplier, budget.remaining))
    if budget.ledger is not None or trainer.world_size > 1:
        on_rank_zero(trainer, budget.open_ledger)


def _corpus_of(trainer: pl.Trainer) -> str:
    """Digest of the training texts; "" if the data module does not give them, or there is no key."""
    sides: Any = getattr(getattr(trainer, "datamodule", None), "sides", None)
    if sides is None or (found := sides()) is None:
        return ""
    try:
        return corpus_digest(texts_of(found.members))
    except OSError as error:
        log.warning("The privacy ledger has no digest of the training set: %s: %s.", error.filename, error.strerror)
        return ""
