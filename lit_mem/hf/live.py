"""The passes of a trainer's run: measured, shown, logged, judged."""

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
        trainer: that trains, or evaluates.
        run: its texts, model and record.
        stopping: ends training; None: there are no limits.
        sent: which metrics the trainer's log gets.
        examples: write the per-example numbers of each pass.
        planned: how many passes there will be; None: not known.

    Attributes:
        trainer: that trains, or evaluates.
        metrics: of the last pass, by logged name; empty where it could not be measured.
        step: at which that was.
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
        """Whether a metric is one of those that are measured."""
        return name is not None and known_of(self._run.session.audit.measures).has(name)

    @property
    def is_current(self) -> bool:
        """Whether the last pass was at the present step."""
        return self._at == (self.trainer.state.global_step, self.trainer.is_in_train)

    def measure(self, evaluation: str | None = None) -> bool:
        """One pass; every process must call it.

        Args:
            evaluation: what the metrics of the evaluation begin with that it belongs to; None: to none.

        Returns:
            Whether there was one: while training there is at most one at a step, and for several evaluation sets one.
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
        except MetricError as error:  # training is the user's, and goes on
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
        """One pass, which may end training; every process must call it."""
        stopping = self._stopping
        if not self.measure(evaluation) or stopping is None or not self.trainer.is_in_train or not self.step:
            return
        audit = self._run.session.audit
        intervals = {} if audit.result is None else audit.result.intervals
        beyond = stopping.beyond(self.metrics, intervals, known_of(audit.measures), "stop")
        if stopping.count(stopping.is_over(beyond), beyond):
            control.should_training_stop = True

    def go_on(self, control: TrainerControl) -> None:
        """Count the passes before a checkpoint again, from the record; every process must call it."""
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
        if not control.should_training_stop:  # more patience now than then
            stopping.reason = None

    def end(self) -> None:
        """Log why training ended, where the model stands, and where the record lies."""
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
            log.info("Record of the run: %s; lit-mem report makes a page of it.", run.files.folder)

    def _row(self, label: str) -> None:
        if not is_first_process():
            return
        if not self._shown:
            self._shown = [name for name in COLUMNS if name in self.metrics]
            tqdm.write(heading(self._shown))  # beside the trainer's bar
        tqdm.write(row(label, self._shown, self.metrics))

    def _to_log(self) -> dict[str, float]:
        """What the trainer's log gets: all, or the main ones, those that limits name, and a user's own."""
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
    """A log beside those of training: its loss at the same step is still logged, and no dictionary is printed."""
    handler, planned = trainer.callback_handler, trainer.control.should_log
    callbacks = handler.callbacks
    handler.callbacks = [one for one in callbacks if not isinstance(one, ProgressCallback | PrinterCallback)]
    try:
        yield
    finally:
        handler.callbacks, trainer.control.should_log = callbacks, planned


@contextmanager
def _as_evaluation(model: nn.Module) -> Iterator[None]:
    """TRL's `log` adds the training metrics since the last one where the model trains, and starts them anew."""
    training = model.training
    model.training = False  # of this module alone: the others are not read
    try:
        yield
    finally:
        model.training = training
