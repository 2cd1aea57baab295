"""Score functions on extreme values: finite and within the documented range, or a MetricError; never a silent NaN."""

import importlib
import inspect
import math
import os
import pkgutil
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lit_mem.attacks
import lit_mem.extraction
from lit_mem.attacks.base import Attack, ProbingAttack
from lit_mem.attacks.lowest import lowest_mean
from lit_mem.callbacks import MembershipInference
from lit_mem.errors import MetricError
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.functional.auroc import auroc
from lit_mem.functional.bert_score import greedy_match_f1
from lit_mem.functional.combine import half_split_scores
from lit_mem.functional.groups import groups_of, has_groups, number_labels
from lit_mem.functional.histogram import histogram
from lit_mem.functional.interval import wilson_interval
from lit_mem.functional.ngram import longest_common_run, ngram_match_rate
from lit_mem.functional.rank_correlation import spearman
from lit_mem.functional.rate import mean_interval
from lit_mem.functional.roc import best_balanced_accuracy, roc_curve, tpr_at_fpr
from lit_mem.functional.substring import longest_common_substring
from lit_mem.functional.tries import log_tries, probability_within
from lit_mem.plots.histogram import histograms_plot
from lit_mem.plots.output import pixels, svg
from lit_mem.plots.roc import roc_plot
from lit_mem.plots.scatter import scatter_plot
from lit_mem.scoring.next_token import greedy_choice, read, sampled_logprob, top_values
from lit_mem.types import Batch, Record, Sampling, TokenScores

# The same examples in every run, so that failures are reproducible.
QUICK = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck], print_blob=False
)
# LIT_MEM_FUZZ=10000 searches more, with other examples each time.
MANY = int(os.environ.get("LIT_MEM_FUZZ", "100"))
LONG = settings(QUICK, max_examples=MANY, derandomize="LIT_MEM_FUZZ" not in os.environ, database=None)
effort = pytest.mark.parametrize("effort", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])

HUGE, TINY = 1.7e308, 5e-324
REAL = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, TINY, -TINY, HUGE, -HUGE, 1.0])
ANY = REAL | st.sampled_from([math.inf, -math.inf, math.nan])
LOGPROB = st.sampled_from([0.0, -0.0, -1e-45, -1e-38, -1e-7, -1.0, -88.0, -1e4, -3.4e38]) | st.floats(-50, 0, width=32)
SPREAD = st.sampled_from([0.0, 1e-45, 1e-4, 1.0, 3.4e38])
SCHEME = Sampling(top_k=40)
FEW = st.integers(1, 4)
TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", " ", "a a a a", "\u202e", "\U0001f600 \u0645", "</s>", "\x1c b", "\xa0"]
)


def concrete(package, kind, but=()):
    """All concrete classes of a kind in a package that need no arguments, so that new files are tested."""
    found = set()
    for entry in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for value in vars(importlib.import_module(entry.name)).values():
            if inspect.isclass(value) and issubclass(value, kind) and not inspect.isabstract(value):
                parameters = inspect.signature(value).parameters.values()
                if not issubclass(value, but) and all(p.default is not p.empty for p in parameters):
                    found.add(value)
    return sorted(found, key=lambda value: value.__name__)


ATTACKS = concrete(lit_mem.attacks, Attack, but=ProbingAttack)
MEASURES = concrete(lit_mem.extraction, ExtractionMeasure)
SCORED = concrete(lit_mem.extraction, ScoredMeasure)
RANGES = {
    "EzMia": (-1, 1),
    "Loss": (-math.inf, 0),
    "MinK": (-math.inf, 0),
    "WindowComparison": (-1e-9, 1),
    "Zlib": (-math.inf, 0),
}


def test_the_packages_are_not_empty():
    assert {attack.__name__ for attack in ATTACKS} >= RANGES.keys() | {"MinKPlusPlus", "ReferenceRatio"}
    assert {measure.__name__ for measure in MEASURES} >= {"EditSimilarity", "ExactMatch", "NgramRate", "RougeL", "Bleu"}
    assert len(SCORED) >= 3


@st.composite
def token_scores(draw, logprob=LOGPROB, rows=FEW):
    """Scores of a few short texts, with zero to six scored tokens, as a forward pass might give them at worst."""
    n, width = draw(rows), 7
    lengths = torch.tensor(draw(st.lists(st.integers(0, width - 1), min_size=n, max_size=n)))
    mask = (torch.arange(width) > 0) & (torch.arange(width) <= lengths[:, None])

    def values(of):
        drawn = torch.tensor(draw(st.lists(of, min_size=n * width, max_size=n * width)), dtype=torch.float32)
        return drawn.view(n, width).masked_fill(~mask, 0.0)

    member = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    hit = torch.tensor(draw(st.lists(st.booleans(), min_size=n * width, max_size=n * width))).view(n, width) & mask
    ids = torch.arange(n)
    batch = Batch(input_ids=torch.zeros(n, width, dtype=torch.int64), labels=torch.zeros(n, width, dtype=torch.int64),
                  example_id=ids, member=member, records=[Record(draw(TEXTS)) for _ in range(n)])  # fmt: skip
    return TokenScores(
        values(logprob), hit, mask, ids, member, reference=values(logprob), reference_hit=hit.flip(1) & mask,
        mean=values(LOGPROB), std=values(SPREAD), sampled={SCHEME: values(LOGPROB | st.just(-math.inf))}, batch=batch,
    )  # fmt: skip


@effort
def test_attacks_on_extreme_log_probabilities(effort):
    @effort
    @given(scores=token_scores())
    def check(scores):
        for attack in ATTACKS:
            low, high = RANGES.get(attack.__name__, (-math.inf, math.inf))
            result = attack()(scores)
            assert result.shape == scores.example_id.shape, attack
            assert result.dtype == torch.float64, attack
            assert result.isfinite().all(), attack
            assert ((result >= low) & (result <= high)).all(), attack
            assert (result[scores.n_tokens == 0] == 0).all(), attack

    check()


@effort
def test_no_attack_makes_a_number_of_what_is_none(effort):
    """If the log-probability of a token is NaN, the token is not a hit either."""

    @effort
    @given(scores=token_scores(), at=st.integers(1, 6))
    def check(scores, at):
        logprob, hit = scores.logprob.clone(), scores.hit.clone()
        hurt = scores.mask[:, at]
        logprob[hurt, at], hit[hurt, at] = math.nan, False
        for attack in ATTACKS:
            result = attack()(replace(scores, logprob=logprob, hit=hit))
            assert result[hurt].isnan().all(), attack
            assert result[~hurt].isfinite().all(), attack

    check()


@pytest.mark.slow
@pytest.mark.exhaustive
@effort
def test_membership_metrics_are_rates_or_rejected(effort, audited):
    @effort
    @given(scores=token_scores(LOGPROB | st.sampled_from([math.nan, -math.inf]), rows=st.integers(12, 14)))
    def check(scores):
        try:
            metrics = audited(MembershipInference(), (scores, scores.batch)).metrics
        except MetricError:
            return
        assert all(0 <= value <= 1 for value in metrics.values())

    check()


@effort
def test_extraction_measures_on_any_texts(effort):
    @effort
    @given(generated=TEXTS, truth=TEXTS.filter(lambda text: text.split()))  # hypothesis lets '\r' pass `str.split`
    def check(generated, truth):
        written = Continuation(list(map(ord, generated)), list(map(ord, truth)), generated, truth)
        for measure in MEASURES:
            assert 0 <= measure()(written) <= 1, measure
            assert measure()(Continuation([], [1], "", truth)) == 0, measure
            assert measure()(Continuation([1], [1], truth, truth)) == pytest.approx(1), measure

    check()


@effort
def test_scored_measures_on_extreme_log_probabilities(effort):
    @effort
    @given(scores=token_scores())
    def check(scores):
        for measure in SCORED:
            result = measure()(scores)
            assert ((result >= 0) & (result <= 1)).all(), measure
            assert (result[scores.n_tokens == 0] == 0).all(), measure

    check()


@st.composite
def judged(draw, score=REAL, least=1):
    """Scores of at least this many members and non-members, with ties."""
    some = draw(st.lists(score, min_size=1, max_size=6))
    members, others = (draw(st.lists(st.sampled_from(some), min_size=least, max_size=10)) for _ in range(2))
    member = torch.tensor([True] * len(members) + [False] * len(others))
    return torch.tensor([*members, *others], dtype=torch.float64), member


@effort
def test_curves_of_any_real_scores(effort):
    @effort
    @given(drawn=judged())
    def check(drawn):
        score, member = drawn
        ranks = score.unique(return_inverse=True)[1].double()
        area = auroc(score, member)
        assert 0 <= area.low <= area.value <= area.high <= 1
        assert area == auroc(ranks, member)
        for values in roc_curve(score, member):
            assert (values[0], values[-1]) == (0, 1)
            assert (values.diff() >= 0).all()
        assert 0.5 <= best_balanced_accuracy(score, member) <= 1
        assert best_balanced_accuracy(score, member) == best_balanced_accuracy(ranks, member)
        rate = tpr_at_fpr(score, member, 0.25)
        assert rate == tpr_at_fpr(ranks, member, 0.25)
        assert rate is None or 0 <= rate <= 1

    check()


@effort
def test_non_finite_scores_are_rejected(effort):
    metrics = [auroc, roc_curve, best_balanced_accuracy, lambda score, member: tpr_at_fpr(score, member, 0.5)]
    metrics.append(lambda score, member: half_split_scores({"a": score}, member, torch.arange(len(score))))

    @effort
    @given(drawn=judged(least=2), bad=st.sampled_from([math.nan, math.inf, -math.inf]), at=st.integers(0, 3))
    def check(drawn, bad, at):
        score, member = drawn
        score[at] = bad
        for metric in metrics:
            with pytest.raises(MetricError, match="not finite"):
                metric(score, member)

    check()


@effort
def test_combined_scores_of_any_real_scores(effort):
    @effort
    @given(first=judged(least=5), data=st.data())
    def check(first, data):
        score, member = first
        n = len(score)
        other = torch.tensor(data.draw(st.lists(REAL, min_size=n, max_size=n)), dtype=torch.float64)
        columns = {"a": score, "b": other, "c": torch.full((n,), HUGE, dtype=torch.float64)}
        combined = half_split_scores(columns, member, torch.arange(n))
        assert combined.shape == score.shape
        n_fit = int(member.sum()) // 2 + int((~member).sum()) // 2
        assert int(combined.isfinite().sum()) == n - n_fit
        assert int(combined.isnan().sum()) == n_fit

    check()


@effort
def test_rank_correlation_of_anything(effort):
    @effort
    @given(pairs=st.lists(st.tuples(ANY, ANY), max_size=12))
    def check(pairs):
        a, b = torch.tensor(pairs, dtype=torch.float64).view(-1, 2).unbind(1)
        rho = spearman(a, b)
        assert rho is None or -1 <= rho <= 1

    check()


@effort
def test_intervals(effort):
    @effort
    @given(
        values=st.lists(ANY | st.floats(0, 1), max_size=12), level=st.floats(1e-9, 1 - 1e-9), n=st.integers(1, 10**12)
    )
    def check(values, level, n):
        given_values = torch.tensor(values, dtype=torch.float64)
        if values and all(0 <= value <= 1 for value in values):
            mean = mean_interval(given_values, level)
            assert 0 <= mean.low <= mean.value <= mean.high <= 1
            low, high = wilson_interval(mean.value, n, level)
            assert 0 <= low <= mean.value <= high <= 1
        else:
            with pytest.raises(MetricError):
                mean_interval(given_values, level)

    check()


@effort
def test_tries(effort):
    @effort
    @given(
        logprob=st.floats(-HUGE, 0) | st.sampled_from([0.0, -math.inf, -TINY, -1e-17]),
        n=st.floats(1, HUGE),
        p=st.floats(1e-12, 1 - 1e-12),
    )
    def check(logprob, n, p):
        given_logprob = torch.tensor([logprob], dtype=torch.float64)
        assert 0 <= probability_within(given_logprob, n).item() <= 1
        tries = log_tries(given_logprob, p).item()
        assert not math.isnan(tries)
        assert (tries == math.inf) == (logprob == -math.inf)

    check()


@effort
def test_runs_that_texts_share(effort):
    @effort
    @given(left=st.text(max_size=30), right=st.text(max_size=30))
    def check(left, right):
        run = longest_common_substring(left, right)
        assert 0 <= run <= min(len(left), len(right))
        assert run == longest_common_substring(right, left)
        assert longest_common_run(left.split(), right.split()) <= min(len(left.split()), len(right.split()))
        if right.split():
            assert 0 <= ngram_match_rate(left, right) <= 1

    check()


@effort
def test_similarity_of_any_vectors(effort):
    value = st.floats(allow_nan=False, allow_infinity=False, width=32)
    vectors = st.lists(st.lists(value, min_size=3, max_size=3), min_size=1, max_size=4)

    @effort
    @given(left=vectors, right=vectors)
    def check(left, right):
        one, other = torch.tensor(left), torch.tensor(right)
        value = greedy_match_f1(one, other)
        assert 0 <= value <= 1
        assert value == pytest.approx(greedy_match_f1(other, one), abs=1e-12)

    check()


@effort
def test_lowest_values_of_any_share(effort):
    @effort
    @given(scores=token_scores(ANY.map(lambda x: torch.tensor(x).float().item())), share=st.floats(1e-9, 1))
    def check(scores, share):
        result = lowest_mean(scores.logprob, scores.mask, share)
        for row, mask, value in zip(scores.logprob.double(), scores.mask, result.tolist(), strict=True):
            counted = sorted(row[mask].tolist())
            if not counted:
                assert value == 0
            elif any(map(math.isnan, counted)):
                assert math.isnan(value)
            else:
                lowest = counted[: max(1, math.floor(len(counted) * share + 1e-9))]
                expected = sum(lowest) / len(lowest)
                assert value == pytest.approx(expected, rel=1e-9) or (math.isnan(value) and math.isnan(expected))

    check()


LOGITS = st.lists(
    st.sampled_from([0.0, -math.inf, 3e38, -3e38, 1e-45, 88.0, -104.0, 1.0]) | st.floats(-100, 100, width=32),
    min_size=9,
    max_size=9,
)


@effort
def test_next_tokens_of_any_logits(effort):
    @effort
    @given(
        rows=st.lists(LOGITS, min_size=1, max_size=3),
        target=st.integers(0, 8),
        k=st.integers(1, 9),
        temperature=st.floats(0.05, 50),
    )
    def check(rows, target, k, temperature):
        logits = torch.tensor(rows, dtype=torch.float32)
        logits[:, 0] = logits[:, 0].clamp(min=-3e38)  # at least one token is possible
        targets = torch.full((len(rows),), target)
        logprob, mean, std = read(logits.clone(), targets, moments=True)
        assert (logprob <= 0).all()
        assert ((mean <= 1e-6) & mean.isfinite()).all()
        assert ((std >= 0) & std.isfinite()).all()
        drawn = sampled_logprob(logits.clamp(min=-1e30, max=1e30), targets, Sampling(temperature, k))
        assert (drawn <= 1e-6).all()
        assert torch.equal(greedy_choice(logits), logits.argmax(dim=-1))
        assert torch.equal(top_values(logits, k), logits.topk(k).values)

    check()


@effort
def test_groups_of_any_values(effort):
    value = st.none() | ANY | st.text(max_size=8) | st.sampled_from(["1e999", "-1e999", "1e-999", "007", "\ud800"])
    values = st.lists(value | st.lists(st.text(max_size=3), max_size=3).map(tuple), max_size=12)

    @effort
    @given(values=values, bins=st.integers(1, 4), most=st.integers(1, 12))
    def check(values, bins, most):
        has_groups(values, most)
        groups = groups_of(values, bins, most)
        assert len(groups) == len(values)
        numbers = [each for each in values if isinstance(each, float) and not math.isnan(each)]
        labels = number_labels(numbers, bins, most)
        assert len(labels) == len(numbers)
        assert all(labels)

    check()


EXTREMES = {
    "all equal": [2.0, 2.0, 2.0, 2.0],
    "a rounding error apart": [1.0, 1 + 2**-52, 1.0, 1 + 2**-52],
    "denormal": [0.0, TINY, 2 * TINY, 0.0],
    "huge": [-HUGE, HUGE, 1.0, 0.0],
    "one each": [1e300, -1e-300, 1e-300, -1e300],
}


@pytest.mark.slow
@pytest.mark.parametrize("values", EXTREMES.values(), ids=EXTREMES)
def test_plots_of_extreme_scores_can_be_drawn(values):
    score, member = torch.tensor(values, dtype=torch.float64), torch.tensor([True, True, False, False])
    plots = [
        histograms_plot({"a": histogram(score[member], score[~member])}),
        roc_plot({"a": roc_curve(score, member)}, 2),
        scatter_plot(score.abs(), member, {"m": score}, {"m": None}),
    ]
    for plot in plots:
        pixels(plot)
        svg(plot, "a", "", "")
