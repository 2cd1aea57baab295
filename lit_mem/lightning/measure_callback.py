"""A measure as an entry of `trainer.callbacks`."""

from __future__ import annotations

from collections.abc import Mapping

from lit_mem.audit.measure import Measure as PlainMeasure
from lit_mem.audit.measure import Result
from lit_mem.audit.table import ScoreTable
from lit_mem.lightning.runs_audit import RunsAudit


class Listed(RunsAudit):
    """Makes a plain measure a callback: `class Mine(MyMeasure, Listed)`.

    Attributes:
        result: its result in the last pass.
    """

    result: Result = Result()

    @property
    def metrics(self) -> Mapping[str, float]:
        """Metrics of the last pass, by name."""
        return self.result.metrics

    @property
    def examples(self) -> ScoreTable | None:
        """Per-example columns of the last pass; None without any."""
        return self.result.rows


class Measure(PlainMeasure, Listed):
    """Base class of measures written as callbacks; for use without Lightning, subclass `audit.Measure`."""
