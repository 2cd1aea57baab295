"""Attack and extraction metrics by subgroup, to find the most exposed one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch

from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.subgroup import Slice, TooSmall, extraction_verdict, verdict
from lit_mem.audit.subgroups import Subgroups
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import ConfigError, check_range
from lit_mem.files.once import Once
from lit_mem.functional.auroc import GroupAuroc
from lit_mem.functional.interval import Interval
from lit_mem.plots.subgroups import subgroups_plot
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)

_ATTACK: Final = "mia/"
_EXTRACTION: Final = "extraction/"
_EXACT: Final = "extraction/exact_rate"


class Slices(Measure):
    """Attack and extraction metrics on subgroups of the validated texts, to find the most exposed ones.

    A subgroup is the examples with one value in a column of the data; a column with several values per example, such
    as `event_types` in PHEE, puts it into several. Numeric columns are split into quantile bins. Examples without a
    value in a column are in none of its subgroups.

    Logged for each subgroup, as in `slice/sex/F/reference_auroc`: for each attack `<attack>_auroc` (its members against
    its non-members) with its 95 % interval `_auroc_low` and `_auroc_high`; for each extraction measure with values in
    [0, 1] the members' mean `<measure>` with its interval `<measure>_low` and `<measure>_high` (`functional.rate`), and
    the base model's mean `<measure>_base`; and `perplexity_members`. Metrics of fewer than `min_size` examples are not
    logged; a message lists them once. In metric names, values and columns are reduced to characters that every logger
    accepts: "not known" is `not_known`. Plot: the subgroups by their AUROC under one attack (`reference`, or the
    first).

    At the end of fit, validate or test a line reports the most exposed subgroup under that attack, if any differs from
    all texts: its interval must lie above the overall AUROC, at a level corrected for the number of subgroups compared
    (Bonferroni). Without the correction, one of 20 identical subgroups may well differ by chance. A second line
    reports the subgroup whose suffixes are extracted whole more often than those of all members, if any is.

    Sliced are the results of the measures `MembershipInference`, `Extraction`, `Extractability`, `SpanExtraction` and
    `Perplexity`.

    Args:
        columns: columns of the data, by name. None: all with at least two groups and at most `max_groups`, which
            excludes identifiers and free text. Their values are shown by name if they are short, occur in at least
            `min_size` rows and do not reveal a text of the run (`lit_mem.functional.shown_values`), else by number,
            most frequent first: `slice/city/value_3/...`. For columns listed here, only values that contain a whole
            text, or more than 40 characters, are numbered.
        length: slice by the number of scored tokens too, as column `length`.
        duplicates: slice by the number of other members with the same text too (0, 1, 2 or more), as column
            `duplicates`. Attacks compare the members of each with all non-members, which have no copies.
        min_size: minimum number of members, and for attacks of non-members too, for a metric.
        bins: number of groups that numeric columns are binned into.
        max_groups: maximum number of distinct texts in a column not listed in `columns`; numeric columns with no more
            distinct values than this are not binned.
        attacks: attacks by name; None: all.
        measures: extraction measures by name (for another group: `group/name`); None: all.
        plots: draw the subgroups for loggers that show images.
        show_text: show values of `columns` even if they contain a whole text, up to 40 characters of each. Metric names
            are written to every log.
    """

    name_prefixes = ("slice/",)
    reads = ("",)

    def __init__(
        self,
        columns: list[str] | None = None,
        length: bool = True,
        duplicates: bool = True,
        min_size: int = 30,
        bins: int = 4,
        max_groups: int = 12,
        attacks: list[str] | None = None,
        measures: list[str] | None = None,
        plots: bool = True,
        show_text: bool = False,
    ) -> None:
        for option, value in (("min_size", min_size), ("bins", bins), ("max_groups", max_groups)):
            check_range(f"Slices.{option}", value, at_least=2)
        if columns == [] and not length and not duplicates:
            raise ConfigError("Slices.columns is empty, and neither length nor duplicates is on; expected one of them")
        if show_text and not columns:
            raise ConfigError("Slices.show_text is true without Slices.columns; expected the columns to show")
        self.min_size = min_size
        self.attacks, self.measures, self.draw = attacks, measures, plots
        self._subgroups = Subgroups(columns, length, duplicates, bins, max_groups, min_size, show_text)
        self._once = Once()

    def names(self) -> list[str]:
        """None: names depend on the data."""
        return []

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for other data; reject names that are never logged.

        Raises:
            ConfigError: `attacks` or `measures` has such a name.
        """
        known.check([f"{_ATTACK}{name}_auroc" for name in self.attacks or ()], "Slices.attacks")
        known.check([_full(name) for name in self.measures or ()], "Slices.measures")
        self._subgroups.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep the grouping attributes of the examples."""
        self._subgroups.observe(scores, batch)

    def check(self, run: Pass) -> None:
        """Reject a name in `columns` that no example has; the message lists those available."""
        if run.complete:  # a few batches do not represent all subgroups
            self._subgroups.gather()

    def compute(self, run: Pass) -> Result:
        """All metrics of the subgroups that are large enough."""
        if not run.complete:
            return Result()  # a few batches do not represent all subgroups
        table = run.rows
        if not table.columns:
            self._log_once("nothing", "No slices: no other measure gives per-example values.")
            return Result()
        slices = self._subgroups.of(table, run.subject)
        too_small = TooSmall(self.min_size)
        attacks, means = self._attacks(table), self._measures(table)
        found = [self._of_attacks(part, attacks, too_small) for part in slices]
        found += [self._of_measures(part, means, too_small) for part in slices]
        metrics = {name: value for one in found for name, value in one.metrics.items()}
        intervals = {name: interval for one in found for name, interval in one.intervals.items()}
        if line := too_small.line():
            self._log_once("small", line)
        verdict, plots = self._compare(run, slices, attacks)
        verdict = (*verdict, *self._extracted(run, slices, means))
        return Result(metrics, plots=plots, verdict=verdict, intervals=intervals)

    def _attacks(self, table: ScoreTable) -> list[str]:
        there = [name.removeprefix(_ATTACK) for name in table.columns if name.startswith(_ATTACK)]
        return [name for name in there if self.attacks is None or name in self.attacks]

    def _measures(self, table: ScoreTable) -> dict[str, str]:
        """Column by name, of the selected measures with values in [0, 1]."""
        chosen = {}
        for column, values in table.columns.items():
            measure = column.removeprefix(_EXTRACTION)
            if "/" not in column or column.startswith(_ATTACK):
                continue
            if self.measures is not None and _full(measure.removesuffix("_base")) not in map(_full, self.measures):
                continue
            measured = values[~torch.isnan(values)]
            if ((measured < 0) | (measured > 1)).any():
                self._log_once(column, f"No slices of {column}: its values are not all in [0, 1].")
            elif len(measured):
                chosen[measure] = column
        return chosen

    def _of_attacks(self, part: Slice, attacks: Sequence[str], too_small: TooSmall) -> Result:
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        for attack in attacks:
            n_members, n_nonmembers = part.measured(_ATTACK + attack)
            if min(n_members, n_nonmembers) < self.min_size:
                too_small.add(attack, part, f"{n_members} / {n_nonmembers}")
                continue
            area = f"{part.name}/{attack}_auroc"
            metrics[area], intervals[area] = part.area(_ATTACK + attack)
        return Result(metrics, intervals=intervals)

    def _of_measures(self, part: Slice, measures: Mapping[str, str], too_small: TooSmall) -> Result:
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        for measure, column in measures.items():
            base = measure.endswith("_base")  # logged beside the tuned model's, which has the interval
            n_members, _ = part.measured(column)
            if n_members >= self.min_size:
                name = f"{part.name}/{measure}"
                metrics[name], interval = part.mean(column)
                if not base:
                    intervals[name] = interval
            elif not base:
                too_small.add(measure, part, f"{n_members}")
        if "perplexity" in part.table.columns and part.measured("perplexity")[0] >= self.min_size:
            metrics[f"{part.name}/perplexity_members"] = part.perplexity()
        return Result(metrics, intervals=intervals)

    def _log_once(self, key: str, message: str) -> None:
        if self._once.first(key):
            log.info("%s", message)

    def _compare(
        self, run: Pass, slices: Sequence[Slice], attacks: Sequence[str]
    ) -> tuple[tuple[tuple[int, str], ...], dict[str, Callable[[], Any]]]:
        """Compare the subgroups that are large enough under one attack: a verdict and a plot."""
        attack = "reference" if "reference" in attacks else next(iter(attacks), None)
        column = f"{_ATTACK}{attack}"
        parts = [part for part in slices if attack and min(part.measured(column)) >= self.min_size]
        if attack is None or not parts:
            return (), {}
        overall = Slice("", "", "", run.rows).exposure(column).area.value
        lines = () if run.checking else ((logging.INFO, verdict(parts, attack, column, overall)),)

        def plot() -> Any:
            columns: dict[str, list[GroupAuroc]] = {}
            for part in parts:
                columns.setdefault(part.column, []).append(part.exposure(column))
            return subgroups_plot(columns, overall, attack)

        return lines, {"slice/exposure": plot} if self.draw else {}

    def _extracted(self, run: Pass, slices: Sequence[Slice], means: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
        """The verdict on whole suffixes extracted, if a subgroup differs."""
        if run.checking or _EXACT not in means.values():
            return ()
        parts = [part for part in slices if part.measured(_EXACT)[0] >= self.min_size]
        line = extraction_verdict(parts, _EXACT, Slice("", "", "", run.rows).mean(_EXACT)[0]) if parts else None
        return ((logging.INFO, line),) if line else ()


def _full(measure: str) -> str:
    """The per-example column of an extraction measure; measures of another group include its name."""
    return measure if "/" in measure else _EXTRACTION + measure
