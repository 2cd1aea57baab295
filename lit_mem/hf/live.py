"""The passes of a trainer's run: measured, shown, logged, judged."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from tqdm.auto import tqdm
from transformers import Trainer, TrainerControl

from lit_mem.audit.gather import is_first_process
from lit_mem.audit.headline import Sent, is_main
from lit_mem.audit.judging import judged_by, judged_texts, verdict_line
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Pass
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

    Attributes:
        metrics: of the last pass, by logged name; empty where it could not be measured.
    """

    def __init__(
        self, trainer: Trainer, run: TrainersRun, stopping: Stopping | None, sent: Sent, examples: bool
    ) -> None:
        self._trainer, self._run, self._stopping = trainer, run, stopping
        self._sent, self._examples = sent, examples
        self.metrics: dict[str, float] = {}
        self._at: tuple[int, bool] | None = None
        self._shown: list[str] = []
        if stopping is not None and stopping.limits.lower_bound:
            for threshold in stopping.limits:
                if threshold.is_auroc and 0 < threshold.limit < 1:
                    log.info("%s", planned_stop(threshold, run.scored))

    def measure(self, checking: bool = False) -> bool:
        """One pass; every process must call it.

        Args:
            checking: it is the one before training.

        Returns:
            Whether there was one: there is at most one at a step.
        """
        trainer, state = self._trainer, self._trainer.state
        at = (state.global_step, trainer.is_in_train)
        if self._at == at:
            return False
        self._at = at
        stage: Literal["fit", "validate"] = "fit" if trainer.is_in_train else "validate"
        epoch = 0 if checking else max(1, math.ceil(round(state.epoch or 0, 6)))
        this = Pass(self._run.session.subject, stage, state.global_step, epoch, checking)
        try:
            result, self.metrics = self._run.measure(this, self._examples)
        except MetricError as error:  # training is the user's, and goes on
            log.warning("Step %d: %s.", state.global_step, error)
            self.metrics = {}
            return True
        self._row("start" if checking else f"{state.epoch or 0:.4g}")
        with _as_evaluation(trainer.model):
            trainer.log(self._to_log())
        if is_first_process():
            show_plots(trainer, result.plots)
        return True

    def measure_and_judge(self, control: TrainerControl) -> None:
        """One pass, which may end training."""
        stopping = self._stopping
        if not self.measure() or stopping is None or not self._trainer.is_in_train:
            return
        beyond = stopping.limits.passed(self.metrics, known_of(self._run.session.audit.measures), "stop")
        if stopping.count(stopping.is_over(beyond), beyond):
            control.should_training_stop = True

    def go_on(self, step: int) -> None:
        """Count the passes before a checkpoint again, from the record."""
        if self._stopping is None or self._run.files is None:
            return
        known = known_of(self._run.session.audit.measures)
        for line in record.read(self._run.files.folder / record.FILE)[0]:
            if line.stage == "fit" and 0 < line.step <= step and line.epoch:
                beyond = self._stopping.limits.passed(line.metrics, known, "stop")
                self._stopping.count(self._stopping.is_over(beyond), beyond)
        self._stopping.reason = None

    def end(self) -> None:
        """Log why training ended, where the model stands, and where the record lies."""
        run, stopping, step = self._run, self._stopping, self._trainer.state.global_step
        if stopping is not None and stopping.reason is not None:
            caveat = stopping.limits.caveat(stopping.looks)
            log.info("Training was stopped at step %d: %s.%s", step, stopping.reason, caveat)
        result = run.session.audit.result
        for found in () if result is None else result.results.values():
            for level, line in found.verdict:
                log.log(level, "%s", line)
        if run.rules and self.metrics:
            judged = judged_by(run.rules, self.metrics)
            level = logging.INFO if judged[0] == "within" else logging.WARNING
            scored = run.scored
            log.log(level, "%s", verdict_line(*judged, f" at step {step}", lambda name: judged_texts(name, scored)))
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
def _as_evaluation(model: nn.Module) -> Iterator[None]:
    """TRL's `log` adds the training metrics since the last one where the model trains, and starts them anew."""
    training = model.training
    model.training = False  # of this module alone: the others are not read
    try:
        yield
    finally:
        model.training = training
