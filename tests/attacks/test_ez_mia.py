"""EZ-MIA compared with a plain loop over the error zone, and the cases in which the paper's ratio is undefined."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.lora import LoRA
from lit_mem.attacks import EzMia
from lit_mem.data.encoding import collate
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import TokenScores


def scores_of(rows):
    """One example per row of (δ, hit) pairs; the reference is at −4 nats."""
    width = max(len(row) for row in rows) + 1
    logprob, reference = torch.zeros(2, len(rows), width)
    hit, mask = torch.zeros(2, len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        for t, (delta, right) in enumerate(row, start=1):
            logprob[i, t], reference[i, t], hit[i, t], mask[i, t] = -4 + delta, -4, right, True
    return TokenScores(logprob, hit, mask, torch.arange(len(rows)), torch.arange(len(rows)) % 2 == 0, reference)


def plain(row):
    """The paper's ratio of sums as (P, N), with the two cases it leaves undefined."""
    zone = [delta for delta, right in row if not right]
    if not any(zone):
        zone = [delta for delta, _ in row]
    return sum(d for d in zone if d > 0), sum(-d for d in zone if d < 0)


# Multiples of a quarter, which add exactly in float32 and float64.
pairs = st.tuples(st.integers(-12, 12).map(lambda q: q / 4), st.booleans())
rows = st.lists(st.lists(pairs, max_size=12), min_size=1, max_size=6)


@settings(deadline=None)
@given(rows)
def test_it_is_a_plain_loop_over_the_error_zone(rows):
    score = EzMia(break_ties=False)(scores_of(rows))
    for value, row in zip(score.tolist(), rows, strict=True):
        rise, fall = plain(row)
        assert value == (0 if rise == fall == 0 else (rise - fall) / (rise + fall))


@pytest.mark.slow
@pytest.mark.exhaustive
@settings(deadline=None)
@given(rows)
def test_it_ranks_as_the_papers_ratio_with_an_infinite_one_on_top(rows):
    score = EzMia(break_ties=False)(scores_of(rows)).tolist()
    ratios = []
    for row in rows:
        rise, fall = plain(row)
        ratios.append(None if rise == fall == 0 else math.inf if fall == 0 else rise / fall)
    known = [(ratio, value) for ratio, value in zip(ratios, score, strict=True) if ratio is not None]
    for a, score_a in known:
        for b, score_b in known:
            assert (a < b) == (score_a < score_b)
    assert all(-1 <= value <= 1 for value in score)
    assert all((ratio == math.inf) == (value == 1) for ratio, value in known)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([(3.0, False), (-1.0, False), (-9.0, True)], 0.5),  # hits do not count
        ([(0.25, False), (3.0, False)], 1.0),  # nothing fell: an infinite ratio, not 0
        ([(-0.25, False), (3.0, True)], -1.0),
        ([(3.0, True), (-1.0, True)], 0.5),  # no error: all tokens
        ([(0.0, False), (3.0, True), (-1.0, True)], 0.5),  # errors, but nothing moved there: all tokens
        ([(0.0, False), (0.0, True)], 0.0),  # no evidence
        ([(1.0, False)], 1.0),
        ([(-1.0, True)], -1.0),
        ([], 0.0),
    ],
)
def test_by_hand(row, expected):
    assert EzMia(break_ties=False)(scores_of([row])).tolist() == [expected]


def test_a_text_that_is_predicted_whole_is_the_surest_member():
    """Other implementations drop such rows or map their infinite ratio to 0, the lowest score of all."""
    whole, partly, worse = [(2.0, True), (1.0, True)], [(2.0, False), (-1.0, False)], [(-1.0, False)]
    score = EzMia(break_ties=False)(scores_of([whole, partly, worse])).tolist()
    assert score == sorted(score, reverse=True)
    assert score[0] == 1 > score[1]


def test_an_untrained_adapter_is_no_evidence_for_any_example(base, examples):
    model = LoRA(rank=4, init="gaussian").wrap(base).eval()
    scorer, batch = TokenScorer(model), collate(examples)
    scores = scorer(batch)
    with adapter_off(model):
        scores = scores.with_reference(scorer(batch).logprob)
    assert torch.equal(EzMia()(scores), torch.zeros(len(examples), dtype=torch.float64))


@pytest.mark.slow
@torch.no_grad()
def test_on_the_model_it_reads_logits_as_the_paper_does(base, examples):
    """One text at a time: error positions by argmax, differences of the log-softmax, no padding."""
    tuned = LoRA(rank=4, dropout=0.0).wrap(base).eval()
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.2)
    batch = collate(examples)
    scores = TokenScorer(tuned)(batch)
    with adapter_off(tuned):
        scores = scores.with_reference(TokenScorer(tuned)(batch).logprob)
    score = EzMia()(scores)
    assert len(set(score.tolist())) > 10, "the perturbed model must differ from its base for this to test anything"
    for row, example in enumerate(examples):
        ids = example.input_ids[None]
        logits = tuned(input_ids=ids).logits[0, :-1].double()
        with adapter_off(tuned):
            frozen = tuned(input_ids=ids).logits[0, :-1].double()
        truth = ids[0, 1:, None]
        delta = (logits.log_softmax(-1).gather(1, truth) - frozen.log_softmax(-1).gather(1, truth))[:, 0]
        delta = delta[logits.argmax(-1) != truth[:, 0]]
        rise, fall = delta[delta > 0].sum(), -delta[delta < 0].sum()
        assert score[row].item() == pytest.approx(((rise - fall) / (rise + fall)).item(), abs=1e-5)


def test_scored_positions_alone_count():
    scores = scores_of([[(3.0, False), (-1.0, False), (-9.0, False)]])
    mask = scores.mask.clone()
    mask[0, 3] = False
    assert EzMia(break_ties=False)(replace(scores, mask=mask)).tolist() == [0.5]
