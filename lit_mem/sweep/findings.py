"""What the paper found, tested on a sweep: it holds, it does not, or these runs cannot tell.

Savine, Pydi, Atif and Cappé 2025, "Memorization in Fine-Tuned Large Language Models" (arXiv 2507.21009): value and
output matrices memorize most; lower perplexity goes with more memorization; a higher rank memorizes more, with
diminishing returns.

Each finding becomes one number a seed that is above 0 where the finding is right, from figures of the last epoch. Its
mean over seeds gets a 95 % interval by Student's t, which with three seeds is 2.5 standard deviations wide on each
side: seeds that differ leave it undecided. Where several differences must all be above 0, each is tested by itself: the
smallest of them in each seed is below 0 by chance, the more often the closer they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lit_mem.functional.interval import student_interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["holds", "does not hold", "undecided"]
MEASURES = ("mia/reference_auroc", "extraction/ngram_rate")
TEST = "paired over seeds, two-sided t-test, 95 % interval"
TEST_OF_ALL = "paired over seeds, t-tests of each difference: all of them above 0, or one of them below (Bonferroni)"


@dataclass(frozen=True)
class Finding:
    """One of the paper's findings, on this model and data.

    Attributes:
        question: matrices, rank or perplexity.
        statement: what would hold.
        verdict: by the interval, which lies above 0, below 0, or has 0 in it.
        test: how.
        estimate: mean over seeds, above 0 where the statement is right.
        low: end of its interval.
        high: end of its interval.
        p_value: of the mean being 0.
        n_seeds: how many.
        note: the unit, and whatever else is to be known.
    """

    question: str
    statement: str
    verdict: Verdict
    test: str
    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None
    n_seeds: int
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def finding(question: str, statement: str, by_seed: Sequence[float], note: str = "") -> Finding:
    """The verdict on numbers of which each seed has one.

    >>> finding("rank", "more", [0.1, 0.11, 0.12]).verdict, finding("rank", "more", [0.1, -0.1, 0.12]).verdict
    ('holds', 'undecided')
    """
    from scipy import stats

    values = np.array([value for value in by_seed if math.isfinite(value)], dtype=np.float64)
    n, mean = len(values), float(values.mean()) if len(values) else None
    if n < 2 or mean is None:
        note = f"{note}; one seed tells no spread" if n else f"{note}; not measured"
        return Finding(question, statement, "undecided", TEST, mean, None, None, None, n, note)
    if values.min() == values.max():  # nothing random was in it, and what another seed would give is not known
        note = f"{note}; the same with every seed"
        return Finding(question, statement, "undecided", TEST, mean, None, None, None, n, note)
    mean, low, high = student_interval(values.tolist())
    p = float(stats.ttest_1samp(values, 0.0).pvalue)
    verdict: Verdict = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
    return Finding(question, statement, verdict, TEST, mean, low, high, p, n, note)


def finding_of_all(question: str, statement: str, by_seed: Sequence[Sequence[float]], note: str = "") -> Finding:
    """The verdict on several differences of which each must be above 0 on average.

    It holds where the 95 % interval of each lies above 0 (intersection-union: no correction is needed for that), and
    does not hold where one of them lies below 0 at a level that is divided by how many there are.

    Args:
        question: as in `Finding`.
        statement: as in `Finding`.
        by_seed: for each difference, its values by seed, all of the same seeds.
        note: as in `Finding`.

    Returns:
        `estimate` is the smallest of the means; `low` and `high` are the ends of an interval that holds the smallest
        true difference in 95 % of cases.

    Source: Berger 1982, "Multiparameter Hypothesis Testing and Acceptance Sampling" (intersection-union test).
    """
    from scipy import stats

    each = [finding(question, statement, values, note) for values in by_seed]
    lowest = min(each, key=lambda one: math.inf if one.estimate is None else one.estimate)
    if any(one.low is None for one in each):
        undecided = next(one for one in each if one.low is None)
        return Finding(
            question, statement, "undecided", TEST_OF_ALL, lowest.estimate, None, None, None, lowest.n_seeds,
            undecided.note,
        )  # fmt: skip
    of_all = 1 - 0.05 / len(by_seed)
    low = min(student_interval(values)[1] for values in by_seed)
    high = min(student_interval(values, of_all)[2] for values in by_seed)
    above = max(float(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue) for values in by_seed)
    below = min(float(stats.ttest_1samp(values, 0.0, alternative="less").pvalue) for values in by_seed) * len(by_seed)
    p = min(1.0, 2 * min(above, below))
    verdict: Verdict = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
    return Finding(question, statement, verdict, TEST_OF_ALL, lowest.estimate, low, high, p, lowest.n_seeds, note)


def last_epochs(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of each trial's last validation; of trials that trained at all."""
    trained = frame[frame["epoch"] > 0]
    return trained.loc[trained.groupby("trial")["step"].idxmax()] if len(trained) else trained


def findings(question: str, frame: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """Those that a sweep can test.

    Args:
        question: the sweep's: matrices, rank, perplexity; another has none.
        frame: its table.
        axes: what it varied.

    Returns:
        One for each measure of memorization, and for each value of the axes that the question is not about.
    """
    tests: Mapping[str, tuple[str | None, Callable[[pd.DataFrame], list[Finding]]]] = {
        "matrices": ("matrices", _matrices),
        "rank": ("rank", _rank),
        "perplexity": (None, _perplexity),
        "datasets": ("matrices", _matrices),
    }
    if question not in tests or not len(frame):
        return []
    axis, test = tests[question]
    others = [label for label in axes if label != axis]
    last = last_epochs(frame)
    found = []
    for values in itertools.product(*(sorted(last[label].unique()) for label in others)):
        part = last
        for label, value in zip(others, values, strict=True):
            part = part[part[label] == value]
        where = ", ".join(f"{label} {value}" for label, value in zip(others, values, strict=True))
        for one in test(part):
            statement = f"{one.statement} ({where})" if where else one.statement
            found.append(Finding(**(asdict(one) | {"statement": statement})))
    return found


def _matrices(last: pd.DataFrame) -> list[Finding]:
    found = []
    for measure in _there(last):
        cells = last.pivot_table(index="seed", columns="matrices", values=measure)
        if not {"q", "k", "v", "o"} <= set(cells.columns):
            continue
        cells = cells.dropna(subset=["q", "k", "v", "o"])
        lead = cells[["v", "o"]].mean(axis=1) - cells[["q", "k"]].mean(axis=1)
        note = f"difference of {measure}: mean of v and o less mean of q and k"
        found.append(finding("matrices", "Value and output memorize more than query and key", list(lead), note))
        pairs = [list(cells[upper] - cells[lower]) for upper in "vo" for lower in "qk"]
        note = f"difference of {measure}: the smallest of v and o each less q and k each, by means over seeds"
        statement = "Value and output each memorize more than both query and key"
        found.append(finding_of_all("matrices", statement, pairs, note))
    return found


def _rank(last: pd.DataFrame) -> list[Finding]:
    found = []
    for measure in _there(last):
        slopes, bends = [], []
        for _, of_seed in last.groupby("seed"):
            of_seed = of_seed.dropna(subset=[measure]).sort_values("rank")
            doublings, values = np.log2(of_seed["rank"].to_numpy(np.float64)), of_seed[measure].to_numpy()
            if len(values) >= 2:
                slopes.append(float(np.polyfit(doublings, values, 1)[0]))
            if len(values) >= 4:
                half = len(values) // 2
                lower = np.polyfit(doublings[: half + 1], values[: half + 1], 1)[0]
                upper = np.polyfit(doublings[-half - 1 :], values[-half - 1 :], 1)[0]
                bends.append(float(lower - upper))
        note = f"slope of {measure} a doubling of the rank"
        found.append(finding("rank", "A higher rank memorizes more", slopes, note))
        note = f"{measure}: slope a doubling in the lower half of the ranks less that in the upper half"
        found.append(finding("rank", "Each doubling of the rank adds less than the one before", bends, note))
    return found


def _perplexity(last: pd.DataFrame) -> list[Finding]:
    found = []
    for side, whose in (("perplexity", "tuned"), ("perplexity_base", "base")):
        for measure in ("ngram_rate", "exact_memorization", "reference"):
            column = f"correlation/{side}_vs_{measure}"
            if column not in last or not last[column].notna().any():
                continue
            cells = last.dropna(subset=[column])
            statement = f"Members with a lower perplexity under the {whose} model have a higher {measure}"
            note = f"minus Spearman's correlation over members ({column})"
            found.append(finding("perplexity", statement, list(-cells[column]), note))
    return found


def _there(last: pd.DataFrame) -> list[str]:
    return [measure for measure in MEASURES if measure in last and last[measure].notna().any()]
