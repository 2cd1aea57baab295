"""Window comparison compared with a brute-force loop over all windows, summed in exact fractions."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.lora import LoRA
from lit_mem.attacks import WindowComparison
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import TokenScores


def scores_of(rows):
    """One example per row of δ, None where a position is not scored; the reference is at −4 nats."""
    width = max(len(row) for row in rows) + 1
    logprob, reference = torch.zeros(2, len(rows), width)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        for t, delta in enumerate(row, start=1):
            # Values at unscored positions must not matter.
            logprob[i, t], reference[i, t], mask[i, t] = (99, -99, False) if delta is None else (-4 + delta, -4, True)
    hit = torch.zeros_like(mask)
    return TokenScores(logprob, hit, mask, torch.arange(len(rows)), torch.arange(len(rows)) % 2 == 0, reference)


def brute_force(row, sizes):
    """Mean over the sizes that fit of the share of windows with a positive sum."""
    deltas = [Fraction(delta) for delta in row if delta is not None]
    if not deltas:
        return 0.0
    fitting = [size for size in sizes if size <= len(deltas)] or [len(deltas)]
    shares = []
    for size in fitting:
        windows = [sum(deltas[i : i + size]) for i in range(len(deltas) - size + 1)]
        shares.append(Fraction(sum(total > 0 for total in windows), len(windows)))
    return float(sum(shares) / len(shares))


# Multiples of a quarter: many windows cancel to exactly 0, and float32 represents each exactly.
deltas = st.one_of(st.none(), st.just(0.0), st.integers(-12, 12).map(lambda q: q / 4))
rows = st.lists(st.lists(deltas, max_size=50), min_size=1, max_size=5)
schemes = st.sampled_from([(2, 40, 10), (1, 3, 3), (3, 3, 1), (5, 60, 4), (2, 7, 20)])


@settings(deadline=None, max_examples=2 * settings.default.max_examples)
@given(rows, schemes)
def test_it_is_a_loop_over_all_windows(rows, scheme):
    attack = WindowComparison(*scheme, break_ties=False)
    expected = [brute_force(row, attack.sizes) for row in rows]
    assert attack(scores_of(rows)).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 39, 40, 41, 200, pytest.param(2000, marks=pytest.mark.slow)])
def test_it_is_a_loop_over_all_windows_of_any_real_numbers(n):
    generator = torch.Generator().manual_seed(n)
    scores = scores_of([[0.0] * n] * 2)
    noise = torch.randn(2, n + 1, generator=generator).masked_fill(~scores.mask, 0)
    scores = replace(scores, logprob=-noise.square(), reference=-noise.flip(0).square())
    attack = WindowComparison(break_ties=False)
    for score, tuned, frozen in zip(attack(scores), scores.logprob, scores.reference, strict=True):
        row = [Fraction(a) - Fraction(b) for a, b in zip(tuned[1:].tolist(), frozen[1:].tolist(), strict=True)]
        assert score.item() == pytest.approx(brute_force(row, attack.sizes), abs=1e-12)


def test_the_sizes_are_the_papers():
    assert WindowComparison().sizes == [2, 3, 4, 5, 8, 11, 15, 21, 29, 40]


@pytest.mark.parametrize(
    ("scheme", "sizes"), [((2, 4, 10), [2, 3, 4]), ((3, 9, 1), [3]), ((4, 4, 5), [4]), ((1, 100, 3), [1, 10, 100])]
)
def test_sizes_are_whole_and_different(scheme, sizes):
    assert WindowComparison(*scheme).sizes == sizes


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1.0, 1.0, -3.0, 1.0], (1 / 3 + 0 + 0) / 3),  # sizes 2, 3, 4; the last cancels to 0
        ([1.0, -1.0], 0.0),  # no vote without a rise
        ([1.0], 1.0),  # shorter than every window: the whole text is one window
        ([-1.0], 0.0),
        ([], 0.0),
        ([1.0, None, -0.5, None], 1.0),  # windows run over scored tokens, over the gaps
    ],
)
def test_by_hand(row, expected):
    assert WindowComparison(break_ties=False)(scores_of([row])).tolist() == pytest.approx([expected], abs=1e-15)


def test_a_text_shorter_than_the_smallest_window_is_one_window():
    attack = WindowComparison(smallest=5, break_ties=False)
    assert attack(scores_of([[-1.0, 2.0, -0.5], [-1.0, 0.5, -0.5], [3.0] * 5])).tolist() == [1, 0, 1]


def test_unchanged_windows_give_no_votes_whatever_comes_before():
    """A rounding error in a cumulative sum must not look like an increase."""
    quiet = WindowComparison(smallest=3, largest=3, sizes=1, break_ties=False)
    before = [0.1, -0.3, 1e-7, 2.7, -1e-5] * 20
    n_before = len(before)
    row = [torch.tensor(d).item() for d in before] + [0.0] * 500
    score = quiet(scores_of([row])).item()
    possible = n_before / (len(row) - 2)  # windows that start before the last change
    assert score <= possible


def test_an_untrained_adapter_scores_every_example_alike(base, examples):
    model = LoRA(rank=4, init="gaussian").wrap(base).eval()
    scorer, batch = TokenScorer(model), collate(examples)
    scores = scorer(batch)
    with adapter_off(model):
        scores = scores.with_reference(scorer(batch).logprob)
    assert torch.equal(WindowComparison()(scores), torch.zeros(len(examples), dtype=torch.float64))


@pytest.mark.slow
@settings(deadline=None)
@given(rows)
def test_it_is_a_share_and_does_not_fall_when_a_token_rises(rows):
    scores = scores_of(rows)
    higher = replace(scores, logprob=torch.where(scores.mask, scores.logprob + 0.25, scores.logprob))
    for attack, lowest in ((WindowComparison(break_ties=False), 0), (WindowComparison(), -1e-9)):
        score = attack(scores)
        assert ((score >= lowest) & (score <= 1)).all()
        assert (attack(higher) >= score).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest": 0}, r"WindowComparison\.smallest is 0"),
        ({"smallest": 9, "largest": 8}, r"WindowComparison\.largest is 8"),
        ({"sizes": 0}, r"WindowComparison\.sizes is 0"),
    ],
)
def test_invalid_sizes_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        WindowComparison(**options)
