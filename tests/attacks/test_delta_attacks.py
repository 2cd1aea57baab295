"""Attacks on δ compared with SciPy and plain loops; calibration; tie-breaking."""

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from lit_mem.adapters.base import adapter_off
from lit_mem.attacks import DeltaLow, DeltaT, EzMia, MinK, ReferenceRatio, WindowComparison, Zlib
from lit_mem.attacks.delta import deltas, ties_broken
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError, MetricError
from lit_mem.functional.roc import tpr_at_fpr
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Record, TokenScores


def scores_of(rows, wrong=False):
    """One example per row of δ, None where a position is not scored; the reference is at −4 nats."""
    width = max(map(len, rows)) + 1
    logprob, reference = torch.zeros(2, len(rows), width)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        for t, delta in enumerate(row, start=1):
            # Values at unscored positions must not matter.
            logprob[i, t], reference[i, t], mask[i, t] = (99, -99, False) if delta is None else (-4 + delta, -4, True)
    ids = torch.arange(len(rows))
    return TokenScores(logprob, mask & wrong, mask, ids, ids % 2 == 0, reference)


deltas_of_a_text = st.lists(st.integers(-12, 12).map(lambda q: q / 4), min_size=1, max_size=40)


@settings(deadline=None)
@given(st.lists(deltas_of_a_text, min_size=1, max_size=4))
def test_delta_t_is_scipys_t_statistic(rows):
    for row, score in zip(rows, DeltaT()(scores_of(rows)).tolist(), strict=True):
        if len(row) > 1 and np.std(row) > 0:
            assert score == pytest.approx(ttest_1samp(row, 0).statistic, rel=1e-5, abs=1e-9)
        else:  # no deviation: the sign is the score
            assert math.copysign(1, score) == math.copysign(1, sum(row)) or score == sum(row) == 0


def test_delta_t_of_one_token_is_the_sign():
    assert DeltaT()(scores_of([[2.0], [-0.5], [0.0]])).tolist() == pytest.approx([1, -1, 0], abs=1e-6)


def test_rounding_is_no_even_rise():
    """Equal changes of 1e-7 in every token are float32 rounding: a bare t statistic is infinite there."""
    rounded, small, real = DeltaT()(replace(scores_of([[0.0] * 30]), logprob=torch.full((1, 31), -4.0 + 4e-7))), 1, 0
    real = DeltaT()(scores_of([[0.1, 0.2] * 15]))
    assert abs(rounded.item()) < small < real.item()


@settings(deadline=None)
@given(st.lists(deltas_of_a_text, min_size=1, max_size=4), st.sampled_from([0.05, 0.2, 0.5, 1.0]))
def test_delta_low_is_a_mean_of_the_lowest(rows, share):
    for row, score in zip(rows, DeltaLow(share)(scores_of(rows)).tolist(), strict=True):
        k = max(1, math.floor(len(row) * share + 1e-9))
        assert score == pytest.approx(sum(sorted(row)[:k]) / k, abs=1e-12)


def test_the_whole_share_is_the_reference_attack():
    scores = scores_of([[1.0, -2.0, 0.5], [0.25]])
    assert DeltaLow(1.0)(scores).tolist() == ReferenceRatio()(scores).tolist()


@pytest.mark.parametrize("share", [0, 1.1, math.nan])
def test_a_share_out_of_range_is_one_line(share):
    with pytest.raises(ConfigError, match=r"DeltaLow\.share is "):
        DeltaLow(share)


def test_calibrated_attacks_are_the_difference_of_two_models_scores():
    generator = torch.Generator().manual_seed(0)
    scores = scores_of([[0.0] * 9, [0.0] * 4 + [None] * 3])
    tuned, frozen = (-torch.rand(2, 10, generator=generator) * scores.mask for _ in range(2))
    texts = ["a rash on both arms", "nothing of note, " * 9]
    scores = replace(scores, logprob=tuned, reference=frozen, batch={"records": [Record(text) for text in texts]})
    alone = replace(scores, logprob=frozen)
    for plain, calibrated in ((MinK(), MinK(calibrated=True)), (Zlib(), Zlib(calibrated=True))):
        assert not plain.needs.reference
        assert calibrated.needs.reference
        difference = plain(scores) - plain(alone)
        assert calibrated(scores).tolist() == pytest.approx(difference.tolist(), abs=1e-12)
    by_hand = (tuned.double() - frozen.double()).sum(dim=1)[0].item() / len(zlib.compress(texts[0].encode()))
    assert Zlib(calibrated=True)(scores)[0].item() == pytest.approx(by_hand, abs=1e-12)


ATTACKS = [DeltaT(), DeltaLow(), MinK(calibrated=True), Zlib(calibrated=True)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: type(one).__name__)
def test_without_a_reference_it_is_one_line(attack):
    scores = replace(scores_of([[1.0]]), reference=None, batch={"records": [Record("a")]})
    with pytest.raises(MetricError, match="needs reference scores"):
        attack(scores)


@torch.no_grad()
@pytest.mark.parametrize("attack", ATTACKS[:3], ids=lambda one: type(one).__name__)
def test_every_text_scores_0_while_the_model_is_its_base(tuned, examples, attack):
    scorer, batch = TokenScorer(tuned), collate(examples)
    with adapter_off(tuned):
        scores = scorer(batch)
        same = scorer(batch)
    scores = scores.with_reference(same.logprob, same.hit)
    assert torch.equal(attack(scores), torch.zeros(len(examples), dtype=torch.float64))


# Ties -------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(deltas_of_a_text, min_size=2, max_size=5), st.booleans())
def test_ties_are_broken_and_nothing_else_moves(rows, wrong):
    scores = scores_of(rows, wrong)
    means = ReferenceRatio()(scores).tolist()
    for kind in (EzMia, WindowComparison):
        plain, broken = kind(break_ties=False)(scores).tolist(), kind()(scores).tolist()
        assert broken == pytest.approx(plain, abs=2e-9)
        for i in range(len(rows)):
            for j in range(len(rows)):
                if plain[i] > plain[j] + 1e-12:
                    assert broken[i] > broken[j]
                elif abs(plain[i] - plain[j]) <= 1e-15 and means[i] > means[j]:
                    assert broken[i] > broken[j]


def test_a_text_s_score_does_not_depend_on_its_batch():
    rows = [[1.0, 2.0, 3.0], [0.0, 0.0]]
    for kind in (EzMia, WindowComparison):
        together = kind()(scores_of(rows)).tolist()
        assert together == [kind()(scores_of([row])).item() for row in rows]
    assert ties_broken(torch.tensor([0.0]), torch.zeros(1, 3), torch.tensor([2])).item() == 0


def test_short_texts_are_found_at_1_percent_which_ties_forbid():
    """29 tokens that all increased: every window of 200 members and of 20 of 200 others votes for membership."""
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(400) < 200
    rise = torch.where(member[:, None], 1.0, 0.2) * (0.5 + torch.rand(400, 29, generator=generator))
    rise[220:] -= 1.0
    scores = replace(scores_of([[0.0] * 29] * 400), member=member)
    scores = replace(scores, logprob=torch.nn.functional.pad(-4 + rise, (1, 0)))
    for kind in (EzMia, WindowComparison):
        assert tpr_at_fpr(kind(break_ties=False)(scores), member, 0.01) == 0
        assert tpr_at_fpr(kind()(scores), member, 0.01) == 1


def test_what_is_not_scored_does_not_count():
    scores = scores_of([[1.0, None, -2.0]])
    assert deltas(scores, "x").tolist() == [[0.0, 1.0, 0.0, -2.0]]
