"""Runs the Audit of a trainer: measures over each validation or test pass, logged by its loggers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden

from lit_mem.audit.loop import Audit, PassResult, needs_of
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import ConfigError
from lit_mem.files.record import Line
from lit_mem.lightning import record
from lit_mem.lightning.console import show_messages
from lit_mem.lightning.headline import log_metrics
from lit_mem.lightning.loggers import log_plot, log_table
from lit_mem.lightning.loss_watch import reject_not_finite
from lit_mem.lightning.module_subject import ModuleSubject
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.own_log import log_own
from lit_mem.lightning.own_pass import OwnPass
from lit_mem.lightning.stopped import written_if_stopped
from lit_mem.scoring.finite import not_finite
from lit_mem.types import Batch, Needs, TokenScores

log = logging.getLogger(__name__)


class TrainerAudit:
    """Runs an `Audit` of the measures among a trainer's callbacks.

    Attributes:
        audit: the Audit of the measures; None before `open`.
        log_at_once: whether `validate` and `test` log verdicts when the pass ends; if not, the command logs them.
        own: scores given texts in a pass of its own; None: the scores are those that `validation_step` returns.
    """

    def __init__(self) -> None:
        self.audit: Audit | None = None
        self.log_at_once = True
        self.own: OwnPass | None = None
        self._subject: Subject | None = None
        self._finished = False
        self._not_finite: str | None = None

    def open(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Prepare the measures for a run.

        Raises:
            ConfigError: an option is invalid, two measures log the same name, or nothing is logged.
        """
        show_messages()
        self.own = None
        for callback in list(callbacks_of(trainer)):
            if isinstance(callback, HasMeasures):
                callback.prepare(trainer)
        mine = measures(trainer)
        if trainer.barebones:
            raise ConfigError(
                f"trainer.barebones is true: nothing is logged, so {type(mine[0]).__name__} cannot log metrics; "
                "remove one of them"
            )
        self.audit, self._subject = Audit(mine), None
        if self.own is not None:
            return  # the module may not have its model yet
        if stage == "fit" and not is_overridden("validation_step", module):
            raise ConfigError(_lacking(mine[0], module, "has no validation_step"))
        if stage == "fit" and trainer.limit_val_batches == 0:
            log.warning(
                "trainer.limit_val_batches is 0: nothing is measured, no threshold can stop the run, and checkpoints "
                "are written only by callbacks that need no validation."
            )
        self.audit.open(ModuleSubject(trainer, module), stage == "fit" and trainer.global_step == 0)

    def leaves_out(self, trainer: pl.Trainer) -> bool:
        """Whether to skip Lightning's sanity check, since given texts are scored after it."""
        return bool(trainer.sanity_checking) and self.own is not None and not self.own.checking

    def begin(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start a pass."""
        if self.audit is None:
            self.audit = Audit(measures(trainer))
        self._finished, self._not_finite = False, None
        if self.own is not None:
            self._subject = self.own.start(trainer, module, self.audit)
        else:
            self._subject = ModuleSubject(trainer, module)
        self.audit.begin(self._subject)

    def observe(self, module: pl.LightningModule, outputs: object, batch: Batch) -> None:
        """Observe the scores that `validation_step` returned.

        Raises:
            ConfigError: it returned something other than scores.
        """
        if self.own is not None:
            return
        assert self.audit is not None
        if not isinstance(outputs, TokenScores):
            found = f"has a validation_step that returned {type(outputs).__name__}"
            raise ConfigError(_lacking(self.audit.measures[0], module, found))
        self._not_finite = self._not_finite or not_finite(outputs, batch)
        self.audit.observe(outputs, batch)

    def finish(self, trainer: pl.Trainer, module: pl.LightningModule) -> PassResult:
        """Compute all measures once per pass, or earlier if another callback reads the result. On every rank.

        Raises:
            MetricError: the loss of a text is not finite.
        """
        audit = self.audit
        assert audit is not None
        if not self._finished:
            if self._subject is None:
                self.begin(trainer, module)
            self._finished = True
            if self.own is not None:
                self._not_finite = self.own.observe(audit)
            reject_not_finite(self._not_finite, trainer, module)
            with written_if_stopped(trainer, module, audit):
                audit.finish(self._pass(trainer))
            for measure, result in audit.result.results.items() if audit.result else ():
                if isinstance(measure, Callback):
                    measure.result = result  # type: ignore[attr-defined]
        assert audit.result is not None
        return audit.result

    def log(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compute and log, early enough for any callback that monitors these names."""
        result = self.finish(trainer, module)
        (log_metrics if self.own is None else log_own)(module, result.metrics)
        if trainer.loggers and trainer.is_global_zero and result.run.complete:
            for name, draw in result.plots.items():
                log_plot(trainer, name, draw)
            for name, table in result.tables.items():
                log_table(trainer, name, table)

    def keep(self, trainer: pl.Trainer) -> None:
        """Append the pass to the run's record, with metrics logged by the module and other callbacks.

        Raises:
            OSError: it cannot be written.
        """
        if self.audit is not None:
            record.write(trainer, self.audit, latest_metrics(trainer))

    def log_verdicts(self) -> None:
        """Log the verdicts of the measures on the run's final model."""
        if self.audit is not None and self.audit.result is not None:
            for result in self.audit.result.results.values():
                for level, line in result.verdict:
                    log.log(level, "%s", line)

    @property
    def latest(self) -> PassResult | None:
        """The result of the last pass; None before the first."""
        return None if self.audit is None else self.audit.result

    def result_of(self, measure: Measure) -> Result:
        """The result of a measure in the last pass; empty without one."""
        found = None if self.audit is None or self.audit.result is None else self.audit.result.results.get(measure)
        return Result() if found is None else found

    def _pass(self, trainer: pl.Trainer) -> Pass:
        assert self._subject is not None
        fit = trainer.state.fn == "fit"
        return Pass(
            self._subject,
            "fit" if fit else "test" if trainer.testing else "validate",
            step=trainer.global_step,
            epoch=trainer.current_epoch + (fit and not trainer.sanity_checking),
            checking=trainer.sanity_checking,
            complete=not partial_check(trainer),
        )


def audit_of(trainer: pl.Trainer) -> TrainerAudit:
    """The TrainerAudit of a trainer, stored in it, so that both are released together."""
    found: TrainerAudit | None = vars(trainer).get("_lit_mem_audit")
    if found is None:
        found = TrainerAudit()
        trainer._lit_mem_audit = found  # type: ignore[attr-defined]
    return found


def exported(trainer: pl.Trainer) -> Any:
    """The object to export: the trainer's module, or the model measured in a pass of its own."""
    own = audit_of(trainer).own
    return trainer.lightning_module if own is None else own.adapter()


def per_example(trainer: pl.Trainer, pl_module: pl.LightningModule) -> ScoreTable:
    """All per-example columns of the last pass, one row per scored example, NaN where not measured.

    Every rank must call it, and gets the same rows.
    """
    return audit_of(trainer).finish(trainer, pl_module).rows


def whole_check(trainer: pl.Trainer) -> bool:
    """Whether Lightning's sanity check runs over all validation batches, so that its metrics are comparable."""
    own = audit_of(trainer).own
    return bool(trainer.num_sanity_val_batches == trainer.num_val_batches) if own is None else own.checking


def partial_check(trainer: pl.Trainer) -> bool:
    """Whether this pass is a sanity check over some of the batches, whose counts are not reported."""
    return bool(trainer.sanity_checking) and not whole_check(trainer)


def _lacking(measure: Measure, module: pl.LightningModule, found: str) -> str:
    return (
        f"{type(measure).__name__} reads the TokenScores that validation_step returns, but {type(module).__name__} "
        f"{found}; return such scores, or use Memorization(members=..., heldout=...), which scores given texts itself"
    )


class HasMeasures:
    """A callback with several measures.

    Attributes:
        measures: the measures.
    """

    measures: Sequence[Measure] = ()

    @property
    def needs(self) -> Needs:
        """Optional fields of `TokenScores` that they read; the module computes what its trainer's callbacks need."""
        return needs_of(self.measures)

    def prepare(self, trainer: pl.Trainer) -> None:
        """Collect the measures of a run, before the first of them is opened."""


def measures(trainer: pl.Trainer) -> list[Measure]:
    """The measures of the trainer's callbacks."""
    found: list[Measure] = []
    for callback in callbacks_of(trainer):
        if isinstance(callback, Measure):
            found.append(callback)
        elif isinstance(callback, HasMeasures):
            found += callback.measures
    return found


def leader(trainer: pl.Trainer) -> Callback | None:
    """The first of the trainer's callbacks that measures."""
    for callback in callbacks_of(trainer):
        if isinstance(callback, Measure) or (isinstance(callback, HasMeasures) and callback.measures):
            return callback
    return None


def latest_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The metrics of the validation that just ended, by name.

    `trainer.callback_metrics` keeps a metric's last value through validations that did not measure it (extraction
    every n validations), and stores it in float32, where 0.6 is above 0.6.
    """
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    audit = audit_of(trainer).audit
    for measure in measures(trainer):
        for name in [*measure.names(), *(n for n in metrics if n.startswith(measure.name_prefixes))]:
            metrics.pop(name, None)
    if audit is not None and audit.result is not None:
        metrics.update(audit.result.metrics)
    return metrics


def measured_line(trainer: pl.Trainer, metrics: Mapping[str, float]) -> Line | None:
    """The record line of the last validation, without timings, which differ between runs.

    None if no measure has a complete pass.

    Args:
        trainer: trainer of the validation.
        metrics: all known metrics of it.
    """
    audit = audit_of(trainer).audit
    if audit is None:
        return None
    lasting = {name: value for name, value in metrics.items() if not name.startswith("time/")}
    return record.measured(trainer, audit, lasting)
