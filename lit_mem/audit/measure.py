"""The contract of a measure: it reads one scoring pass, with no trainer, no logger and no other measure."""

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
"""Confidence of the intervals whose ends are metrics."""
NO_BASE = "the scores hold no greedy hits of a reference, so nothing is measured of the base model"


class Table(NamedTuple):
    """A table for loggers that show them; it holds no training text.

    Attributes:
        header: of its columns.
        rows: a text for each column.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Result:
    """What a measure computes from one pass.

    Attributes:
        metrics: by logged name. One that cannot be measured is left out.
        rows: per-example columns, NaN where an example was not measured; None: none.
        plots: by name a function that draws a matplotlib figure; called only where a logger shows it.
        tables: by name.
        verdict: lines on the model that a run ends with, each with its level of `logging`.
        persons: a row for each person or document; None: not measured.
        intervals: confidence intervals of metrics by their names, each at any level. The Audit adds both ends at 95 %
            to the metrics, as `<name>_low` and `<name>_high` (`with_ends`); what needs another level asks here.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    rows: ScoreTable | None = None
    plots: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    verdict: tuple[tuple[int, str], ...] = ()
    persons: PersonTable | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def plus(self, other: Result) -> Result:
        """The same with another's metrics, intervals and verdict behind its own."""
        return replace(
            self,
            metrics={**self.metrics, **other.metrics},
            intervals={**self.intervals, **other.intervals},
            verdict=self.verdict + other.verdict,
        )

    def with_ends(self) -> Result:
        """The same with both ends of each interval at 95 % behind their metric."""
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
        stage: of what the pass is: "fit" (a validation while training), "validate" or "test".
        step: training steps so far.
        epoch: of training, from 1; 0 before it.
        checking: whether it is the check before training starts or goes on, and no validation of its own.
        complete: False in a check over some of the batches, whose counts mean little.
        rows: per-example columns of measures that come earlier.
        known: names that the audit's measures give.
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
        """Whether the pass repeats the last validation of a run that goes on."""
        return self.checking and self.step > 0


class Measure(ABC):
    """One kind of measurement, computed from a pass over members and held-out texts.

    It observes only: the Audit restores the global random state after whatever a measure does.

    Attributes:
        needs: what it reads of `TokenScores` that is computed only if someone reads it.
        reads: how the columns of other measures' rows begin that it reads; such a measure is computed after those that
            read none.
        generates: whether it generates text, which takes long: what the others measure is computed before that.
        of_canaries: whether it measures canaries, and nothing else; the others never see one.
        name_prefixes: how names begin that it logs and cannot list before it has seen the data.
        ends: ids of the tokens at which the model's decoding stops; the Audit sets them.
        absent: metrics that it would log and cannot in this run, by name, with what they lack.
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
        """Metrics that it may log, so that a misspelt threshold is rejected at once."""

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Prepare for a run over a model.

        Args:
            subject: the model, which may not be loaded yet.
            known: what the audit's measures give.
            fresh: whether a new training run starts; False: an evaluation, or a run that goes on.

        Raises:
            ConfigError: an option does not fit.
        """

    def begin(self, subject: Subject) -> None:
        """Start a pass: drop what the last one left."""

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Take in one batch. It may call the model, on each rank as often as it needs; it must not call collectives."""

    def check(self, run: Pass) -> None:
        """Reject an option that the pass has shown to be a mistake, before anything is generated; every rank calls it.

        Raises:
            ConfigError: there is such.
        """

    @abstractmethod
    def compute(self, run: Pass) -> Result:
        """What the pass measured, from the rows of all ranks; every rank calls it."""

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Go without metrics whose input the scores lack, with one warning; thresholds on them are rejected.

        Args:
            names: of the metrics, as they are logged.
            reason: which they are, and what they lack.
        """
        self.absent = {**self.absent, **dict.fromkeys(names, reason)}
        log.warning("%s: %s.", type(self).__name__, reason)


@runtime_checkable
class Stateful(Protocol):
    """A measure of which a resumed run needs something of the passes before."""

    @property
    def state_key(self) -> str:
        """Under which it is kept; measures of one class in one run need different ones."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """As plain values and tensors."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        ...


@runtime_checkable
class Recalling(Protocol):
    """A measure that can go on from the metrics of a run's passes so far, for trainers that keep no state of it."""

    def recall(self, validations: Sequence[Mapping[str, float]]) -> None:
        """Go on from there; the validations of the fit up to the checkpoint, in order."""
        ...


def with_ends(names: Iterable[str]) -> list[str]:
    """Names of metrics that have an interval, each followed by those of its ends.

    >>> with_ends(["mia/loss_auroc"])
    ['mia/loss_auroc', 'mia/loss_auroc_low', 'mia/loss_auroc_high']
    """
    return [name + end for name in names for end in ("", "_low", "_high")]


def means_by_set(table: ScoreTable, columns: Iterable[str], namespace: str) -> Result:
    """Each column's mean over members, `<namespace>/<column>`, and over held-out texts, `…_heldout`.

    A mean of numbers in [0, 1] has an interval.
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
