"""Measuring passes of a trainer's run: compute, print, log and judge."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerControl

from lit_mem.audit.gather import gathered, is_first_process
from lit_mem.audit.headline import Sent, is_main
from lit_mem.audit.judging import judged_by, judged_texts, verdict_line
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Pass, Recalling
from lit_mem.audit.row import COLUMNS, heading, row
from lit_mem.audit.stopping import Stopping, planned_stop
from lit_mem.errors import MetricError
from lit_mem.files import record
from lit_mem.hf.plots import show_plots
from lit_mem.hf.run import TrainersRun

log = logging.getLogger(__name__)


class LiveRun:
    """Measures a model while a trainer trains it.

    Args:
        trainer: the trainer.
        run: its texts, model and record.
        stopping: decides when to stop; None without limits.
        sent: which metrics are passed to the trainer's log.
        examples: write the per-example scores of each pass.
        planned: expected number of passes; None if not known.

    Attributes:
        trainer: the trainer.
        metrics: metrics of the last pass, by logged name; empty if it could not be measured.
        step: step of the last pass.
    """

    def __init__(
        self,
        trainer: Trainer,
        run: TrainersRun,
        stopping: Stopping | None,
        sent: Sent,
        examples: bool,
        planned: int | None = None,
    ) -> None:
        self.trainer, self._run, self._stopping = trainer, run, stopping
        self._sent, self._examples = sent, examples
        self.metrics: dict[str, float] = {}
        self.step = 0
        self._at: tuple[int, bool] | None = None
        self._evaluated: set[str] = set()
        self._shown: list[str] = []
        if stopping is not None and stopping.limits.meaning:
            log.info("stop: %s.", stopping.limits.meaning)
        if stopping is not None and stopping.limits.lower_bound:
            stopping.planned = planned
            for threshold in stopping.limits:
                if threshold.is_auroc and threshold.name.startswith("mia/") and 0 < threshold.limit < 1:
                    log.info("%s", planned_stop(threshold, run.scored, stopping.level))

    def gives(self, name: str | None) -> bool:
        """Whether a metric of this name may be measured."""
        return name is not None and known_of(self._run.session.audit.measures).has(name)

    @property
    def is_current(self) -> bool:
        """Whether the last pass was at the current step."""
        return self._at == (self.trainer.state.global_step, self.trainer.is_in_train)

    def measure(self, evaluation: str | None = None) -> bool:
        """Run one pass; every process must call it.

        Args:
            evaluation: prefix of the evaluation's metrics that the pass belongs to; None without one.

        Returns:
            Whether a pass ran: in training at most one per step, and one for several evaluation sets.
        """
        trainer, state = self.trainer, self.trainer.state
        if self.is_current and (trainer.is_in_train or evaluation not in self._evaluated):
            self._evaluated.add(evaluation or "")
            return False
        self._at, self._evaluated = (state.global_step, trainer.is_in_train), {evaluation or ""}
        self.step = state.global_step
        stage: Literal["fit", "validate"] = "fit" if trainer.is_in_train else "validate"
        epoch = max(1, math.ceil(round(state.epoch or 0, 6))) if self.step else 0
        this = Pass(self._run.session.subject, stage, self.step, epoch, trainer.is_in_train and not self.step)
        try:
            result = self._run.measure(this, self._examples)
        except MetricError as error:  # training continues
            log.warning("Step %d: %s.", self.step, error)
            self.metrics = {}
            return True
        self.metrics = result.metrics
        self._row("eval" if not trainer.is_in_train else f"{state.epoch or 0:.4g}" if self.step else "start")
        with _as_evaluation(trainer.model), _aside(trainer):
            trainer.log(self._to_log())
        if is_first_process():
            show_plots(trainer, result.plots)
        return True

    def measure_and_judge(self, control: TrainerControl, evaluation: str | None = None) -> None:
        """Run one pass, which may stop training; every process must call it."""
        stopping = self._stopping
        if not self.measure(evaluation) or stopping is None or not self.trainer.is_in_train or not self.step:
            return
        audit = self._run.session.audit
        intervals = {} if audit.result is None else audit.result.intervals
        beyond = stopping.beyond(self.metrics, intervals, known_of(audit.measures), "stop")
        if stopping.count(stopping.is_over(beyond), beyond):
            control.should_training_stop = True

    def resume(self, control: TrainerControl) -> None:
        """On resuming, count the passes before the checkpoint from the record; every process must call it."""
        stopping, files, step = self._stopping, self._run.files, self.trainer.state.global_step
        measures = self._run.session.audit.measures
        recalling = [one for one in measures if isinstance(one, Recalling)]
        if stopping is None and not recalling:
            return
        read = gathered(None if files is None else record.read(files.folder / record.FILE)[0])[0]
        before = [line.metrics for line in read or () if line.stage == "fit" and 0 < line.step <= step]
        for one in recalling:
            one.recall(before)
        if stopping is None:
            return
        known = known_of(measures)
        for metrics in before:
            beyond = stopping.beyond(metrics, {}, known, "stop")
            control.should_training_stop = stopping.count(stopping.is_over(beyond), beyond)
        if not control.should_training_stop:  # patience was raised since
            stopping.reason = None

    def end(self) -> None:
        """Log why training stopped, the verdict, and the path of the record."""
        run, stopping = self._run, self._stopping
        if stopping is not None and stopping.reason is not None:
            at = self.trainer.state.global_step
            log.info("Training was stopped at step %d: %s.%s", at, stopping.reason, stopping.certainty())
        result = run.session.audit.result
        for found in () if result is None else result.results.values():
            for level, line in found.verdict:
                log.log(level, "%s", line)
        if run.rules and self.metrics:
            judged = judged_by(run.rules, self.metrics)
            level = logging.INFO if judged[0] == "within" else logging.WARNING
            scored = run.scored
            log.log(
                level, "%s", verdict_line(*judged, f" at step {self.step}", lambda name: judged_texts(name, scored))
            )
        if run.files is not None:
            log.info("Record of the run: %s; lit-mem report turns it into a page.", run.files.folder)

    def _row(self, label: str) -> None:
        if not is_first_process():
            return
        if not self._shown:
            self._shown = [name for name in COLUMNS if name in self.metrics]
            tqdm.write(heading(self._shown))  # without breaking the trainer's progress bar
        tqdm.write(row(label, self._shown, self.metrics))

    def _to_log(self) -> dict[str, float]:
        """Metrics for the trainer's log: all, or the main ones, those that limits name, and custom ones."""
        if self._sent == "all":
            return dict(self.metrics)
        named = {n for rule in self._run.rules for t in rule.limits for n in _with_interval(t.name)}
        named |= {
            name
            for measure in self._run.session.audit.measures
            if type(measure).__module__.partition(".")[0] != "lit_mem"
            for name in measure.names()
        }
        return {name: value for name, value in self.metrics.items() if name in named or is_main(name)}


def _with_interval(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


@contextmanager
def _aside(trainer: Trainer) -> Iterator[None]:
    """Log without side effects: the training loss of the same step is still logged, and no dictionary is printed."""
    handler, planned = trainer.callback_handler, trainer.control.should_log
    callbacks = handler.callbacks
    handler.callbacks = [one for one in callbacks if not isinstance(one, ProgressCallback | PrinterCallback)]
    try:
        yield
    finally:
        handler.callbacks, trainer.control.should_log = callbacks, planned


@contextmanager
def _as_evaluation(model: nn.Module) -> Iterator[None]:
    """Make TRL's `log` neither add nor reset the training metrics, which it does only if `model.training` is set."""
    training = model.training
    model.training = False  # only of this module: submodules are not read
    try:
        yield
    finally:
        model.training = training
