"""The last line of a run: whether its final model is within its limits."""

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
    """One sentence on a validation, with the number of scored texts from the trainer's callbacks and data."""
    return verdict_line(state, judged, when, lambda name: scored_for(name, trainer))


class LastLine(Limited):
    """Mixin for callbacks with limits: judges each validation of a fit, and logs the last judgement at the end."""

    _last: tuple[State, str] | None = None

    def note(self, trainer: pl.Trainer) -> None:
        """Judge the last validation, if this is the last callback with limits."""
        self._last = None
        holders = [one for one in callbacks_of(trainer) if isinstance(one, LastLine) and one.rules()]
        if holders and holders[-1] is self:
            state, judged = judged_by(rules_in(trainer), latest_metrics(trainer))
            self._last = state, line(state, judged, f" after epoch {trainer.current_epoch + 1}", trainer)

    def say(self, trainer: pl.Trainer) -> None:
        """Log the judgement of the fit's last validation."""
        if self._last is not None and trainer.is_global_zero:
            state, text = self._last
            log.log(logging.INFO if state == "within" else logging.WARNING, "%s", text)
        self._last = None


def audited(trainer: pl.Trainer) -> tuple[list[str], list[str]]:
    """Judge a model that was not trained in this run by training's thresholds.

    Returns:
        The lines to log at the end of `validate` and `test`, and the conditions for a report; both empty without
        thresholds. Metrics that the pass did not measure are left out of both.
    """
    metrics = latest_metrics(trainer)
    rules, absent = _on_measured(rules_in(trainer), metrics)
    lines = []
    if rules:
        lines.append(line(*judged_by(rules, metrics), "", trainer))
    if absent:
        lines.append(f"Thresholds not measured in this pass: {', '.join(absent)}.")
    return lines, list(dict.fromkeys(str(threshold) for rule in rules for threshold in rule.limits))


def _on_measured(rules: Sequence[Rule], metrics: Mapping[str, float]) -> tuple[list[Rule], list[str]]:
    """The rules restricted to thresholds whose metric was measured, under its name in this pass; the other names."""
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
