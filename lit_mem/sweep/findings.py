"""The paper's findings, tested on a sweep: each holds, does not hold, or is undecided.

Savine, Pydi, Atif and Cappé 2025, "Memorization in Fine-Tuned Large Language Models" (arXiv 2507.21009): value and
output matrices memorize most; lower perplexity goes with more memorization; a higher rank memorizes more, with
diminishing returns.

Each finding becomes one value per seed that is above 0 if the finding is true, from metrics of the last epoch. Its
mean over seeds has a Student's t interval, at the level that bounds the probability of any wrong verdict in the sweep
by 5 % (`lit_mem/sweep/verdict.py`). With three seeds and one finding it extends 2.5 standard deviations to each side,
with eight findings 7.3: if seeds differ, it stays undecided. If several differences must all be above 0, each is
tested separately: the smallest of them in each seed is below 0 by chance, the more often the closer they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lit_mem.sweep.verdict import Claim, Finding, verdict_on

if TYPE_CHECKING:
    import pandas as pd

MEASURES = ("mia/reference_auroc", "extraction/ngram_rate")


def last_epochs(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of each trial's last validation, for trials that trained."""
    trained = frame[frame["epoch"] > 0]
    return trained.loc[trained.groupby("trial")["step"].idxmax()] if len(trained) else trained


def findings(question: str, frame: pd.DataFrame, axes: Sequence[str]) -> list[Finding]:
    """The verdicts on the claims a sweep can test; any is wrong in at most 5 % of sweeps.

    Args:
        question: the sweep's question: matrices, rank, perplexity; others have no claims.
        frame: table of the sweep.
        axes: axes of the sweep.

    Returns:
        One for each of `claims`; undecidable ones count as tested too.
    """
    tested = claims(question, frame, axes)
    return [verdict_on(claim, len(tested)) for claim in tested]


def claims(question: str, frame: pd.DataFrame, axes: Sequence[str]) -> list[Claim]:
    """The claims that a sweep can test.

    Args:
        question: as in `findings`.
        frame: as in `findings`.
        axes: as in `findings`.

    Returns:
        One for each measure of memorization, and for each value of the axes other than the question's.
    """
    tests: Mapping[str, tuple[str | None, Callable[[pd.DataFrame], list[Claim]]]] = {
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
            found.append(replace(one, statement=f"{one.statement} ({where})") if where else one)
    return found


def _matrices(last: pd.DataFrame) -> list[Claim]:
    found = []
    for measure in _there(last):
        cells = last.pivot_table(index="seed", columns="matrices", values=measure)
        if not {"q", "k", "v", "o"} <= set(cells.columns):
            continue
        cells = cells.dropna(subset=["q", "k", "v", "o"])
        lead = cells[["v", "o"]].mean(axis=1) - cells[["q", "k"]].mean(axis=1)
        note = f"difference of {measure}: mean of v and o minus mean of q and k"
        found.append(Claim("matrices", "Value and output memorize more than query and key", [list(lead)], note))
        pairs = [list(cells[upper] - cells[lower]) for upper in "vo" for lower in "qk"]
        note = f"difference of {measure}: the smallest of v and o each minus q and k each, by means over seeds"
        statement = "Value and output each memorize more than both query and key"
        found.append(Claim("matrices", statement, pairs, note))
    return found


def _rank(last: pd.DataFrame) -> list[Claim]:
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
        note = f"slope of {measure} per doubling of the rank"
        found.append(Claim("rank", "A higher rank memorizes more", [slopes], note))
        note = f"{measure}: slope per doubling in the lower half of the ranks minus that in the upper half"
        found.append(Claim("rank", "Each doubling of the rank adds less than the one before", [bends], note))
    return found


def _perplexity(last: pd.DataFrame) -> list[Claim]:
    found = []
    for side, whose in (("perplexity", "tuned"), ("perplexity_base", "base")):
        for measure in ("ngram_rate", "exact_memorization", "reference"):
            column = f"correlation/{side}_vs_{measure}"
            if column not in last or not last[column].notna().any():
                continue
            cells = last.dropna(subset=[column])
            statement = f"Members with a lower perplexity under the {whose} model have a higher {measure}"
            note = f"minus Spearman's correlation over members ({column})"
            found.append(Claim("perplexity", statement, [list(-cells[column])], note))
    return found


def _there(last: pd.DataFrame) -> list[str]:
    return [measure for measure in MEASURES if measure in last and last[measure].notna().any()]
