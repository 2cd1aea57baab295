"""The interface of a measure: it reads one scoring pass and has no access to trainers or loggers."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from lit_mem.audit.known import Known
from lit_mem.audit.person import PersonTable
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.functional.interval import Interval
from lit_mem.functional.rate import rate_interval
from lit_mem.types import Batch, Needs, TokenScores

log = logging.getLogger(__name__)

LEVEL: Final = 0.95
"""Confidence level of the intervals whose ends are logged."""
NO_BASE = "the scores hold no greedy hits of a reference, so metrics of the base model are not measured"


class Table(NamedTuple):
    """A table for loggers that support them; it holds no training text.

    Attributes:
        header: column titles.
        rows: cells as text, one per column.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Result:
    """The output of a measure for one pass.

    Attributes:
        metrics: values by logged name. A metric that cannot be measured is left out.
        rows: per-example columns, NaN where an example was not measured; None without any.
        plots: functions by name, each drawing a matplotlib figure; called only if a logger shows it.
        tables: tables by name.
        verdict: final lines about the model, each with its `logging` level.
        persons: one row per person or document; None if not measured.
        intervals: confidence intervals by metric name, callable at any level. The Audit adds both 95 % ends to the
            metrics, as `<name>_low` and `<name>_high` (`with_ends`); other levels are read from here.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: ScoreTable | None = None
    plots: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    verdict: tuple[tuple[int, str], ...] = ()
    persons: PersonTable | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def plus(self, other: Result) -> Result:
        """A copy with another result's metrics, intervals and verdict appended."""
        return replace(
            self,
            metrics={**self.metrics, **other.metrics},
            intervals={**self.intervals, **other.intervals},
            verdict=self.verdict + other.verdict,
        )

    def with_ends(self) -> Result:
        """A copy with both 95 % ends of each interval after its metric."""
        metrics: dict[str, float] = {}
        for name, value in self.metrics.items():
            metrics[name] = value
            if name in self.intervals:
                metrics[f"{name}_low"], metrics[f"{name}_high"] = self.intervals[name](LEVEL)
        return replace(self, metrics=metrics)


@dataclass(frozen=True)
class Pass:
    """One pass over members and held-out texts, as measures see it.

    Attributes:
        subject: the model.
        stage: "fit" (a validation while training), "validate" or "test".
        step: training steps so far.
        epoch: training epoch, from 1; 0 before training.
        checking: whether this is the check before training starts or resumes, not a validation of its own.
        complete: False for a check over some of the batches, whose counts are not meaningful.
        rows: per-example columns of measures computed earlier.
        known: names that the audit's measures may log.
    """

    subject: Subject
    stage: Literal["fit", "validate", "test"] = "validate"
    step: int = 0
    epoch: int = 0
    checking: bool = False
    complete: bool = True
    rows: ScoreTable = field(default_factory=lambda: ScoreTable.empty())
    known: Known = field(default_factory=Known)

    @property
    def resumed_check(self) -> bool:
        """Whether the pass repeats the last validation of a resumed run."""
        return self.checking and self.step > 0


class Measure(ABC):
    """One kind of measurement, computed from a pass over members and held-out texts.

    The Audit restores the global random state after each call of a measure.

    Attributes:
        needs: optional fields of `TokenScores` that it reads; they are computed only if some measure needs them.
        reads: prefixes of the columns of other measures that it reads; it is computed after the measures that read
            none.
        generates: whether it generates text, which is slow: the other measures are computed first.
        of_canaries: whether it measures only canaries; other measures never see one.
        name_prefixes: prefixes of logged names that cannot be listed before the data is seen.
        ends: ids of the tokens at which the model's decoding stops; set by the Audit.
        absent: metrics that cannot be measured in this run, by name, each with the reason.
    """

    needs: Needs = Needs()
    reads: tuple[str, ...] = ()
    generates: bool = False
    of_canaries: bool = False
    name_prefixes: tuple[str, ...] = ()
    ends: frozenset[int] = frozenset()
    absent: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def names(self) -> list[str]:
        """Metrics that it may log, so that a misspelt threshold is rejected at the start."""

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Prepare for a run over a model.

        Args:
            subject: the model, which may not be loaded yet.
            known: names that the audit's measures may log.
            fresh: whether a new training run starts; False for an evaluation or a resumed run.

        Raises:
            ConfigError: an option is invalid.
        """

    def begin(self, subject: Subject) -> None:
        """Start a pass: reset the state of the last one."""

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Process one batch. It may call the model any number of times on each rank; it must not call collectives."""

    def check(self, run: Pass) -> None:
        """Reject an option that the data shows to be wrong, before anything is generated; every rank calls it.

        Raises:
            ConfigError: an option is invalid.
        """

    @abstractmethod
    def compute(self, run: Pass) -> Result:
        """Compute the result from the rows of all ranks; every rank calls it."""

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Skip metrics whose input is missing from the scores, with one warning; thresholds on them are rejected.

        Args:
            names: logged names of the metrics.
            reason: which metrics are skipped, and why.
        """
        self.absent = {**self.absent, **dict.fromkeys(names, reason)}
        log.warning("%s: %s.", type(self).__name__, reason)


@runtime_checkable
class Stateful(Protocol):
    """A measure whose state a resumed run restores."""

    @property
    def state_key(self) -> str:
        """Key of the state; measures of one class in one run need different keys."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The state as plain values and tensors."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        ...


@runtime_checkable
class Recalling(Protocol):
    """A measure that can rebuild its state from logged metrics, for trainers that do not save measure state."""

    def recall(self, validations: Sequence[Mapping[str, float]]) -> None:
        """Rebuild the state from the validations of the fit up to the checkpoint, in order."""
        ...


def with_ends(names: Iterable[str]) -> list[str]:
    """Metric names that have an interval, each followed by those of its ends.

    >>> with_ends(["mia/loss_auroc"])
    ['mia/loss_auroc', 'mia/loss_auroc_low', 'mia/loss_auroc_high']
    """
    return [name + end for name in names for end in ("", "_low", "_high")]


def means_by_set(table: ScoreTable, columns: Iterable[str], namespace: str) -> Result:
    """Each column's mean over members, `<namespace>/<column>`, and over held-out texts, `…_heldout`.

    Means of values in [0, 1] have an interval.
    """
    sets = (("", table.members()), ("_heldout", table.nonmembers()))
    metrics, intervals = dict[str, float](), dict[str, Interval]()
    for column in columns:
        for part, rows in sets:
            if len(rows):
                name, values = f"{namespace}/{column}{part}", rows[column]
                metrics[name] = values.mean().item()
                if ((values >= 0) & (values <= 1)).all():
                    intervals[name] = rate_interval(values)[1]
    return Result(metrics, intervals=intervals)
