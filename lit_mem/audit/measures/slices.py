"""Every attack and extraction figure by subgroup: who is exposed most?"""

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
    """The figures of attacks and extraction on subgroups of the validated texts, to see who is exposed most.

    A subgroup is the examples with one value in a column of the data; a column with several values an example, as
    `event_types` in PHEE, puts it into several. Numbers are cut into quantile bins. Examples without a value in a
    column are in none of its subgroups.

    Logged for each subgroup, as in `slice/sex/F/reference_auroc`: for each attack `<attack>_auroc` (its members against
    its non-members) with its 95 % interval `_auroc_low` and `_auroc_high`; for each extraction measure with
    values in [0, 1] the members' mean `<measure>` with its interval `<measure>_low` and `<measure>_high`
    (`functional.rate`), and
    the base model's mean `<measure>_base`; and `perplexity_members`. What takes fewer than `min_size` examples of a
    kind is not logged; the log says once which. Values and columns keep in names what every logger takes:
    "not known" is `not_known`. Plot: the subgroups by their AUROC under one attack (`reference`, or the first).

    At the end of fit, validate or test a line says who is exposed most under that attack, if anyone stands out from all
    texts: the subgroup's interval must lie above their AUROC, at a level raised for the number of subgroups compared
    (Bonferroni). Without that, among 20 subgroups that are all alike one may well stand out by chance. A second line
    says likewise whose suffixes are written whole more often than those of all members, if anyone's are.

    What is sliced is what the other callbacks measured: `MembershipInference`, `Extraction`, `Extractability`,
    `SpanExtraction` and `Perplexity`.

    Args:
        columns: of the data, by name. None: all with at least two groups and no more than `max_groups`, which leaves
            out identifiers and free text. Their values are named if they are short, stand in at least `min_size` rows
            and give no text of the run away (`lit_mem.functional.shown_values`), else numbered, the most frequent
            first: `slice/city/value_3/...`. Of columns named here only values that hold a whole text, or more than 40
            characters, are numbered.
        length: slice by the number of scored tokens too, as column `length`.
        duplicates: slice by how many other members have the same text too (0, 1, 2 or more), as column `duplicates`.
            Attacks judge the members of each of these against all non-members, which have no copies.
        min_size: fewest members, and for attacks fewest non-members too, from which a figure is computed.
        bins: how many groups numbers are cut into.
        max_groups: most distinct texts in a column that `columns` does not name; and numbers of no more distinct
            values than this are not cut.
        attacks: by name; None: all.
        measures: of extraction, by name (another group's with it: `group/name`); None: all.
        figures: draw the subgroups for loggers that show images.
        show_text: name values of `columns` even if they hold a whole text, up to 40 characters of each. Names of
            metrics go into every log.
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
        figures: bool = True,
        show_text: bool = False,
    ) -> None:
        for option, value in (("min_size", min_size), ("bins", bins), ("max_groups", max_groups)):
            check_range(f"Slices.{option}", value, at_least=2)
        if columns == [] and not length and not duplicates:
            raise ConfigError("Slices.columns is empty, and neither length nor duplicates is on; expected one of them")
        if show_text and not columns:
            raise ConfigError("Slices.show_text is true without Slices.columns; expected columns whose texts are shown")
        self.min_size = min_size
        self.attacks, self.measures, self.draw = attacks, measures, figures
        self._subgroups = Subgroups(columns, length, duplicates, bins, max_groups, min_size, show_text)
        self._once = Once()

    def names(self) -> list[str]:
        """None that are known before the data is."""
        return []

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Start with other data; reject names that nothing logs.

        Raises:
            ConfigError: `attacks` or `measures` has one.
        """
        known.check([f"{_ATTACK}{name}_auroc" for name in self.attacks or ()], "Slices.attacks")
        known.check([_full(name) for name in self.measures or ()], "Slices.measures")
        self._subgroups.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep what the examples are sorted by."""
        self._subgroups.observe(scores, batch)

    def check(self, run: Pass) -> None:
        """Reject a name in `columns` that no example has; it names those there are."""
        if run.complete:  # a few batches say little of who is there
            self._subgroups.gather()

    def compute(self, run: Pass) -> Result:
        """Every metric of every subgroup that is large enough."""
        if not run.complete:
            return Result()  # a few batches say little of who is there
        table = run.rows
        if not table.columns:
            self._log_once("nothing", "No slices: no other measure gives numbers of single examples.")
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
        """Column by name: what is asked for, and within [0, 1]."""
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
            base = measure.endswith("_base")  # stands beside the tuned model's, which has the interval
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
        """One attack on all subgroups that are large enough: a verdict and a plot."""
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
        """Whose suffixes are written whole, as a verdict, if anyone stands out."""
        if run.checking or _EXACT not in means.values():
            return ()
        parts = [part for part in slices if part.measured(_EXACT)[0] >= self.min_size]
        line = extraction_verdict(parts, _EXACT, Slice("", "", "", run.rows).mean(_EXACT)[0]) if parts else None
        return ((logging.INFO, line),) if line else ()


def _full(measure: str) -> str:
    """The per-example column of an extraction measure; one of another group brings its group along."""
    return measure if "/" in measure else _EXTRACTION + measure
