"""Texts scored in several runs, such as the assistant turns of a conversation: no suffix extends into a user's turn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.attacks.rewriting import rewritten
from lit_mem.data.encoding import Encoded
from lit_mem.data.remarks import on_end_tokens
from lit_mem.errors import MetricError
from lit_mem.extraction import Discoverable, ExactMemorization, ExtractionStrength
from lit_mem.extraction.prompts import cut_prompt
from lit_mem.functional.ends import before_end, first_run, is_end
from lit_mem.types import IGNORED, Sampling, TokenScores

EOS = 2
#      BOS user    assistant    user    assistant
TALK = [1, 90, 91, 11, 12, 13, 92, 93, 21, 22, 23, 24]
OWN = "...+++..++++"


def labels_of(ids, own):
    return torch.tensor([token if mark == "+" else IGNORED for token, mark in zip(ids, own, strict=True)])


@pytest.mark.parametrize(
    ("prefix", "given", "suffix"),
    [
        (0, TALK[:3], [11, 12, 13]),
        (1, TALK[:4], [12, 13]),
        (2, TALK[:5], [13]),
        (3, TALK[:8], [21, 22, 23, 24]),  # the user's turn is in the prefix
        (0.5, TALK[:8], [21, 22, 23, 24]),
        (6, TALK[:11], [24]),
        (0.2, TALK[:4], [12, 13]),
    ],
)
def test_a_suffix_ends_with_the_run_that_is_cut(prefix, given, suffix):
    prompt = cut_prompt(torch.tensor(TALK), labels_of(TALK, OWN), prefix, EOS)
    assert (prompt.input_ids[: prompt.cut].tolist(), prompt.suffix.tolist()) == (given, suffix)
    assert cut_prompt(torch.tensor(TALK), labels_of(TALK, OWN), 7, EOS) is None


def test_end_tokens_that_are_trained_on_end_a_suffix_before_its_run_does():
    ids = torch.tensor([1, 90, 11, 12, EOS, 91, 21, EOS])
    labels = labels_of(ids.tolist(), "..+++.++")
    assert cut_prompt(ids, labels, 0, EOS).suffix.tolist() == [11, 12]
    assert cut_prompt(ids, labels, 0, None).suffix.tolist() == [11, 12, EOS]
    assert cut_prompt(ids, labels, 2, EOS) is None  # an end token stands first
    assert cut_prompt(ids, labels, 3, EOS).suffix.tolist() == [21]


def scored(hits, own, ids=None, drawn=None):
    mask = torch.tensor([[mark == "+" for mark in own]])
    hit = torch.tensor([[mark == "1" for mark in hits]]) & mask
    drawn = {} if drawn is None else {Sampling(): torch.tensor([drawn])}
    ends = None if ids is None else is_end(torch.tensor([ids]), {EOS})
    one = torch.tensor([0])
    return TokenScores(torch.zeros(mask.shape), hit, mask, one, one == 0, sampled=drawn, ends=ends)


@pytest.mark.parametrize(
    ("hits", "own", "ids", "exact", "strength"),
    [
        ("..111..1111", "..+++..++++", None, 1.0, 1.0),
        ("..011..1111", "..+++..++++", None, 6 / 7, 6 / 7),
        ("..111..0111", "..+++..++++", None, 6 / 7, 3 / 7),
        # an end token between the turns, or at the end of each, ends no other turn
        ("..111..1101", "..+++..++++", [1, 9, 5, 5, 5, EOS, 9, 5, 5, 5, 5], 6 / 7, 1 / 7),
        ("..110..1110", "..+++..++++", [1, 9, 5, 5, EOS, 9, 9, 5, 5, 5, EOS], 1.0, 1.0),
        # inside a turn it ends that turn, as it does a text's only one
        ("..100..1111", "..+++..++++", [1, 9, 5, EOS, 5, 9, 9, 5, 5, 5, 5], 1.0, 1.0),
        ("..100", "..+++", [1, 9, 5, EOS, 5], 1.0, 1.0),
    ],
)
def test_measures_without_a_prefix_read_every_turn(hits, own, ids, exact, strength):
    scores = scored(hits, own, ids)
    assert ExactMemorization()(scores).tolist() == pytest.approx([exact])
    assert ExtractionStrength()(scores).tolist() == pytest.approx([strength])


def test_the_drawn_suffix_is_that_of_one_turn():
    drawn = [-1.0, -2, -4, -8, -16, -32, -64]
    for prefix, expected in [(0, -6.0), (1, -4.0), (2, -48.0), (3, -32.0), (0.4, -4.0), (0.5, -48.0)]:
        measure = Discoverable(10, None, prefix, Sampling())
        found = measure.suffix_logprob(scored(".......", ".++.++.", drawn=drawn))
        assert found.tolist() == [expected], prefix
        prompt = cut_prompt(torch.arange(7), labels_of(range(7), ".++.++."), prefix, None)
        assert sum(drawn[prompt.cut : len(prompt.input_ids)]) == expected


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_runs_are_those_of_a_loop(tokens):
    suffix, ends = (torch.tensor([[token[k] for token in tokens]]) for k in (0, 1))
    kept, first, ended, runs, within = [], [], False, 0, False
    for own, end in tokens:
        runs += own and not within
        ended = own and ((ended and within) or end)
        within = own
        kept.append(own and not ended)
        first.append(own and runs == 1)
    assert before_end(suffix, ends).tolist() == [kept]
    assert first_run(suffix).tolist() == [first]
    assert before_end(suffix, None).tolist() == suffix.tolist()


def test_the_last_token_of_a_turn_is_no_end_token_inside(tokenizer):
    def example(ids, own):
        return Encoded(torch.tensor(ids), labels_of(ids, own), len(ids), True)

    at_turns = example([1, 9, 5, 5, EOS, 9, 5, 5, EOS], "..+++.+++")
    inside = example([1, 9, 5, EOS, 5, 9, 5, 5, EOS, 9], "..+++.+++.")
    assert on_end_tokens([at_turns], {EOS}, tokenizer) is None
    line = on_end_tokens([at_turns, inside], {EOS}, tokenizer)
    assert line.startswith("1 of 2 texts")
    assert "8% of the scored tokens" in line  # one of twelve


def test_attacks_that_rewrite_a_text_reject_one_of_several_turns(tokenizer):
    example = Encoded(torch.tensor(TALK), labels_of(TALK, OWN), 5, True)
    with pytest.raises(MetricError, match="example 5 is scored in several pieces"):
        rewritten(example, "a b", ["c d"], tokenizer, None)
