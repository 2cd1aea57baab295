"""How often a sweep without any differences between settings has a decided finding; simulated, with normal metrics.

The shares in docs/guides/sweeps.md are printed by `-rP`:

    python -m pytest -m slow tests/sweep/test_null_sweeps.py -rP
"""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lit_mem.sweep.findings import MEASURES, claims
from lit_mem.sweep.verdict import Claim, verdict_on

SWEEPS = {"matrices": 1000, "rank": 300, "perplexity": 1000}  # slopes take longest
CORRELATIONS = [
    f"correlation/{side}_vs_{score}"
    for side in ("perplexity", "perplexity_base")
    for score in ("ngram_rate", "exact_memorization", "reference")
]
# Axes and metrics as in configs/sweeps.
KINDS = {
    "matrices": ({"matrices": list("qkvo"), "size": ["equal rank", "equal parameters"]}, MEASURES),
    "rank": ({"rank": [1, 2, 4, 8, 16, 32, 64]}, MEASURES),
    "perplexity": ({"targets": ["all-linear"]}, CORRELATIONS),
}


def sweeps_of_nothing(question, n_seeds, rng):
    """Claims of many sweeps in which seeds differ, equally in all settings, and so do runs.

    A claim has a value for each seed, so that all sweeps can be one table, each with its own seeds.
    """
    axes, names = KINDS[question]
    cells = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    frame = pd.DataFrame([cell | {"seed": seed} for cell in cells for seed in range(n_seeds * SWEEPS[question])])
    frame = frame.assign(trial=frame.index.astype(str), epoch=7, step=70)
    noise, middle = rng.normal(0, 1, (len(frame), len(names))), 0.0
    if question != "perplexity":  # correlations are around 0; the others are differences of settings
        noise, middle = noise + rng.normal(0, 1, (n_seeds * SWEEPS[question], len(names)))[frame["seed"]], 0.7
    frame[list(names)] = middle + 0.02 * noise
    tested = claims(question, frame, list(axes))
    for start in range(0, n_seeds * SWEEPS[question], n_seeds):
        its = slice(start, start + n_seeds)
        yield [replace(claim, differences=[values[its] for values in claim.differences]) for claim in tested]


MORE_SEEDS = [pytest.param(n, marks=pytest.mark.exhaustive) for n in (5, 10)]


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, *MORE_SEEDS])
@pytest.mark.parametrize(("question", "n_findings"), [("matrices", 8), ("rank", 4), ("perplexity", 6)])
def test_a_sweep_without_differences_seldom_has_a_decided_finding(question, n_findings, n_seeds):
    together, alone, sweeps = 0, 0, SWEEPS[question]
    for tested in sweeps_of_nothing(question, n_seeds, np.random.default_rng(0)):
        found = [verdict_on(claim, len(tested)) for claim in tested]
        assert [len(found), *{one.n_seeds for one in found}] == [n_findings, n_seeds]
        together += any(one.verdict != "undecided" for one in found)
        # The p-value is multiplied by the number of findings: uncorrected, that many times as many would pass.
        alone += any(one.p_value / n_findings < 0.05 for one in found)
    shares = f"{together / sweeps:.1%}, and {alone / sweeps:.1%} with each at 95 %"
    print(f"{question}: {n_findings} findings, {n_seeds} seeds: {shares}")  # noqa: T201  (shown by -rP)
    assert together / sweeps <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / sweeps)  # three standard deviations of the share
    assert alone > together


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, *MORE_SEEDS])
@pytest.mark.parametrize("n_findings", [1, 8])
def test_each_of_v_and_o_above_q_and_k_is_seldom_decided_at_its_edge(n_findings, n_seeds):
    """All equal; and one of the four differences 0 with the others far above, where "holds" errs most."""
    rng, level, draws = np.random.default_rng(0), 0.05 / n_findings, 1000
    for lead, direction in ((0.0, level), (100.0, level / 2)):
        decided, holds = 0, 0
        for _ in range(draws):
            q, k, v, o = rng.normal(0, 1, (4, n_seeds)) + np.array([[0.0], [-lead], [0.0], [lead]])
            pairs = [list(upper - lower) for upper in (v, o) for lower in (q, k)]
            verdict = verdict_on(Claim("matrices", "", pairs), n_findings).verdict
            decided += verdict != "undecided"
            holds += verdict == "holds"
        shares = f"decided {decided / draws:.2%}, holds {holds / draws:.2%}"
        print(f"v and o lead by {lead:g}: {n_findings} findings, {n_seeds} seeds: {shares}")  # noqa: T201  (shown by -rP)
        assert decided / draws <= level + 3 * np.sqrt(level * (1 - level) / draws)
        assert holds / draws <= direction + 3 * np.sqrt(direction * (1 - direction) / draws)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_what_holds_is_seldom_said_not_to_hold(n_seeds):
    """v and o exceed q and k by half a standard deviation; the minimum minus the maximum is below 0 on average."""
    rng, trials, wrong, biased = np.random.default_rng(0), 300, 0, 0
    for _ in range(trials):
        q, k, v, o = rng.normal(0, 1, (4, n_seeds)) + np.array([[0], [0], [0.5], [0.5]])
        pairs = [list(upper - lower) for upper in (v, o) for lower in (q, k)]
        wrong += verdict_on(Claim("matrices", "", pairs)).verdict == "does not hold"
        lower = list(np.minimum(v, o) - np.maximum(q, k))
        biased += verdict_on(Claim("matrices", "", [lower])).verdict == "does not hold"
    assert wrong / trials < 0.025
    assert biased / trials > 0.05
