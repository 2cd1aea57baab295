"""Run all measures over one pass: order, name clashes, and shared guards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result, Table
from lit_mem.audit.person import PersonTable
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable, joined
from lit_mem.errors import ConfigError
from lit_mem.functional.interval import Interval
from lit_mem.guards import preserved_random_state
from lit_mem.types import Batch, Needs, TokenScores, holds_canaries


@dataclass
class PassResult:
    """Results of the measures computed so far in a pass.

    Attributes:
        run: the pass.
        results: result of each measure, in the order of computation.
    """

    run: Pass
    results: dict[Measure, Result] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics by logged name."""
        return {name: value for result in self.results.values() for name, value in result.metrics.items()}

    @property
    def intervals(self) -> dict[str, Interval]:
        """Confidence intervals by logged metric name, callable at any level; only the 95 % ends are logged."""
        return {name: interval for result in self.results.values() for name, interval in result.intervals.items()}

    @property
    def rows(self) -> ScoreTable:
        """All per-example columns, a row for each scored example, NaN where not measured."""
        return joined([result.rows for result in self.results.values() if result.rows is not None])

    @property
    def plots(self) -> dict[str, Any]:
        """Drawing functions of the plots, by name."""
        return {name: draw for result in self.results.values() for name, draw in result.plots.items()}

    @property
    def persons(self) -> PersonTable | None:
        """One row per person or document; None if no two rows share one."""
        return next((one.persons for one in self.results.values() if one.persons is not None), None)

    @property
    def tables(self) -> dict[str, Table]:
        """Tables by name."""
        return {name: table for result in self.results.values() for name, table in result.tables.items()}


class Audit:
    """The measures of a run, over one pass at a time.

    The global random state is restored after each batch and after the measures compute. Only canary measures observe
    canaries. Measures are computed in order: those of the scoring pass, those that generate, those that read others.

    Args:
        measures: the measures, in any order.

    Raises:
        ConfigError: two measures would log the same name.

    Attributes:
        result: result of the current pass so far, or of the last one; None before the first.
        computing: the measure being computed, or the one that ended the pass with an error.
    """

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = list(measures)
        self.result: PassResult | None = None
        self.computing: Measure | None = None
        self._subject: Subject | None = None
        for i, measure in enumerate(self.measures):
            for other in self.measures[:i]:
                _reject_clash(measure, other)

    @property
    def needs(self) -> Needs:
        """Optional fields of `TokenScores` that the measures read."""
        return needs_of(self.measures)

    def open(self, subject: Subject, fresh: bool) -> None:
        """Prepare all measures for a run over a model.

        Raises:
            ConfigError: an option of a measure is invalid.
        """
        self.result = None
        for measure in self.measures:
            measure.absent = {}
        known = known_of(self.measures)
        for measure in self.measures:
            measure.open(subject, known, fresh)

    def begin(self, subject: Subject) -> None:
        """Start a pass."""
        self.result, self._subject = None, subject
        for measure in self.measures:
            measure.ends = subject.ends
            measure.begin(subject)

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Pass a batch to the measures it concerns."""
        assert self._subject is not None
        canaries = holds_canaries(batch)
        with preserved_random_state(), self._subject.lockstep():
            for measure in self.measures:
                if measure.of_canaries == canaries:
                    measure.observe(scores, batch)

    def finish(self, run: Pass) -> PassResult:
        """Compute the measures; if one raises or the user interrupts, `result` holds those computed before."""
        self.result = PassResult(run)
        run = replace(run, known=known_of(self.measures))
        with preserved_random_state():
            for measure in self.measures:
                measure.check(run)
            before, reading = self.in_order()
            for measure in before:
                self._compute(measure, run)
            run = replace(run, rows=self.result.rows) if reading else run
            for measure in reading:
                self._compute(measure, run)
        self.computing = None
        return self.result

    def _compute(self, measure: Measure, run: Pass) -> None:
        assert self.result is not None
        self.computing = measure
        self.result.results[measure] = measure.compute(run).with_ends()

    def in_order(self) -> tuple[list[Measure], list[Measure]]:
        """Measures that read no others, generating ones last; and measures that read the others' rows."""
        alone = [measure for measure in self.measures if not measure.reads]
        return sorted(alone, key=lambda measure: measure.generates), [one for one in self.measures if one.reads]


def needs_of(measures: Sequence[Measure]) -> Needs:
    """Optional fields of `TokenScores` that the measures read."""
    needs = Needs()
    for measure in measures:
        needs |= measure.needs
    return needs


def known_of(measures: Sequence[Measure]) -> Known:
    """Names that the measures may log."""
    own = {name for measure in measures if not measure.reads for name in measure.names()}
    columns = {name.removesuffix(end) for name in own for end in ("_auroc", "_heldout") if name.endswith(end)}
    return Known(
        frozenset(name for measure in measures for name in measure.names()),
        tuple(prefix for measure in measures for prefix in measure.name_prefixes),
        frozenset(columns),
        {name: lacks for measure in measures for name, lacks in measure.absent.items()},
    )


def clash(measure: Measure, other: Measure) -> str | None:
    """A name or name prefix that both would log; None without a clash."""
    if shared := sorted(set(measure.names()) & set(other.names())):
        return shared[0]
    if not (isinstance(measure, type(other)) or isinstance(other, type(measure))):
        return None  # different measures may share a prefix
    for one, another in ((measure, other), (other, measure)):
        for prefix in one.name_prefixes:
            if prefix in another.name_prefixes or any(name.startswith(prefix) for name in another.names()):
                return f"{prefix}…"
    return None


def _reject_clash(measure: Measure, other: Measure) -> None:
    if (name := clash(measure, other)) is not None:
        mine, theirs = type(measure).__name__, type(other).__name__
        raise ConfigError(f"{theirs} and {mine} both log {name!r}; keep one of them, or give one other names")
