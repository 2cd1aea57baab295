"""The last line of a run: whether the model that it ends with is within its limits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

import lightning.pytorch as pl

from lit_mem.audit.closing import here
from lit_mem.audit.judging import Judged, Rule, State, judge, judged_by, verdict_line
from lit_mem.lightning.auditing import latest_metrics
from lit_mem.lightning.limited import Limited, rules_in
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.planned_stop import scored_for

log = logging.getLogger(__name__)


def line(state: State, judged: Sequence[Judged], when: str, trainer: pl.Trainer) -> str:
    """One sentence on a validation; the trainer's callbacks and data say how many texts were scored."""
    return verdict_line(state, judged, when, lambda name: scored_for(name, trainer))


class LastLine(Limited):
    """Mixed into callbacks that have limits: judges each validation of a fit, and logs the last one when it ends."""

    _last: tuple[State, str] | None = None

    def note(self, trainer: pl.Trainer) -> None:
        """Judge the validation that just ended, if this callback is the last that has limits."""
        self._last = None
        holders = [one for one in callbacks_of(trainer) if isinstance(one, LastLine) and one.rules()]
        if holders and holders[-1] is self:
            state, judged = judged_by(rules_in(trainer), latest_metrics(trainer))
            self._last = state, line(state, judged, f" after epoch {trainer.current_epoch + 1}", trainer)

    def say(self, trainer: pl.Trainer) -> None:
        """Log the judgement of the validation that the fit ended with."""
        if self._last is not None and trainer.is_global_zero:
            state, text = self._last
            log.log(logging.INFO if state == "within" else logging.WARNING, "%s", text)
        self._last = None


def audited(trainer: pl.Trainer) -> tuple[list[str], list[str]]:
    """Where a model stands that was not trained here, by training's thresholds.

    Returns:
        The lines to log at the end of `validate` and `test`, and the conditions to give a report; both empty without
        thresholds. Metrics that the pass did not measure are in neither judgement nor conditions.
    """
    metrics = latest_metrics(trainer)
    rules, absent = _on_measured(rules_in(trainer), metrics)
    lines = []
    if rules:
        lines.append(line(*judged_by(rules, metrics), "", trainer))
    if absent:
        lines.append(f"Not measured in this pass: {', '.join(absent)}, of the thresholds.")
    return lines, list(dict.fromkeys(str(threshold) for rule in rules for threshold in rule.limits))


def _on_measured(rules: Sequence[Rule], metrics: Mapping[str, float]) -> tuple[list[Rule], list[str]]:
    """The rules with those thresholds whose metric was measured, by the name that it has here; the other names."""
    kept, absent = [], []
    for rule in rules:
        limits = copy(rule.limits)
        limits.thresholds = []
        for threshold in rule.limits:
            named = replace(threshold, name=here(threshold.name, metrics))
            if judge(named, metrics).state == "not measured":
                absent.append(threshold.name)
            else:
                limits.thresholds.append(named)
        if limits.thresholds:
            kept.append(rule._replace(limits=limits))
    return kept, list(dict.fromkeys(absent))
