"""Extraction from any position of a long text: compared with brute force over positions, and with `generate`."""

import logging
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.audit.measures import SlidingExtraction
from lit_mem.data.chunks import in_windows
from lit_mem.data.encoding import Encoded, collate
from lit_mem.errors import ConfigError
from lit_mem.extraction.sliding import longest_run, suffix_logprobs
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.scoring.windows import context_begins, windows_of
from lit_mem.types import IGNORED, TokenScores, Windows

pytestmark = pytest.mark.slow


@st.composite
def rows(draw):
    n = draw(st.integers(1, 60))
    values = st.lists(st.booleans(), min_size=n, max_size=n)
    hit, read = torch.tensor(draw(values)), torch.tensor(draw(values))
    tokens = draw(st.integers(2, 20))
    text = Windows(tokens, draw(st.integers(1, tokens)), draw(st.sampled_from([0, 1])), n) if n > tokens else None
    return hit, read, context_begins(text, n)


@given(rows(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_places_are_those_of_a_plain_loop(row, prefix, suffix, seed):
    _, read, begins = row
    logprob = -torch.rand(len(read), generator=torch.Generator().manual_seed(seed))
    expected = []
    for i in range(len(read) - suffix + 1):
        tokens = range(i, i + suffix)
        if all(read[t] for t in tokens) and all(begins[t] <= i - prefix for t in tokens):
            expected.append(sum(logprob[t].item() for t in tokens))
    assert suffix_logprobs(logprob, read, begins, prefix, suffix).tolist() == pytest.approx(expected, abs=1e-6)


@given(rows(), st.integers(1, 6))
def test_the_run_is_that_of_a_plain_loop(row, prefix):
    hit, read, begins = row
    longest = run = 0
    for t in range(len(hit)):
        if t and begins[t] != begins[t - 1] and t - begins[t] < prefix:
            run = 0
        run = run + 1 if hit[t] and read[t] else 0
        longest = max(longest, run)
    assert longest_run(hit, read, begins, prefix) == longest


@pytest.fixture(scope="module")
def learned(module, tokenizer):
    """A model that has memorized two texts, these and another similar one; all in windows of 24 tokens."""
    said = [
        " ".join(f"the {word} was given on {day} and then" for word, day in zip(words, days, strict=True))
        for words, days in (
            (["drug", "dose", "fever", "rash", "ward"], ["Monday", "Tuesday", "Friday", "Sunday", "Thursday"]),
            (["letter", "book", "coat", "lamp", "key"], ["May", "June", "July", "March", "April"]),
            (["horse", "tree", "river", "stone", "cloud"], ["one", "two", "three", "four", "five"]),
        )
    ]
    made = module(dropout=0.0, targets=["all-linear"])
    made.configure_model()
    model, examples = made.language_model, []
    for i, text in enumerate(said):
        ids = torch.tensor(tokenizer(text)["input_ids"])
        labels = ids.clone()
        labels[0] = IGNORED
        examples.append(Encoded(ids, labels, i, i < 2, windows=Windows(24, 12, 1, len(ids))))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    torch.manual_seed(0)
    for _ in range(40):
        for one in in_windows(examples[:2]):
            optimizer.zero_grad()
            model(input_ids=one.input_ids[None], labels=one.labels[None]).loss.backward()
            optimizer.step()
    return model.eval(), examples


@pytest.mark.slow
def test_measure_is_brute_force_over_all_places(learned, audited, tokenizer):
    model, examples = learned
    with model.disable_adapter(), torch.no_grad():
        base = TokenScorer(model)(collate(examples))
    scores = TokenScorer(model)(collate(examples)).with_reference(base.logprob, base.hit)
    prefix, suffix = 6, 5
    table = audited(SlidingExtraction(prefix, suffix), (scores, scores.batch)).rows
    for row, one in enumerate(examples):
        ids = one.input_ids
        best = -math.inf
        for i in range(1 + prefix, len(ids) - suffix + 1):
            # The window that scores the last token: the first that holds it.
            window = next(w for w in windows_of(one.windows) if w.first <= i + suffix - 1 < w.stop)
            if window.start > i - prefix:
                continue
            total = 0.0
            for t in range(i, i + suffix):
                mine = next(w for w in windows_of(one.windows) if w.first <= t < w.stop)
                given_ids = torch.cat([ids[:1], ids[mine.start : t]])
                with torch.no_grad():
                    logits = model(input_ids=given_ids[None]).logits[0, -1]
                total += logits.log_softmax(-1)[ids[t]].item()
            best = max(best, total)
        assert math.log(table["extraction/largest_p_z"][row].item()) == pytest.approx(best, abs=1e-3)
    assert table["extraction/largest_p_z"][0] > 0.5 > 0.01 > table["extraction/largest_p_z_base"][0]


def test_generate_writes_the_longest_run(learned, audited):
    """Greedy decoding from the text before the run, in the window of each of its tokens, gives exactly the run."""
    model, examples = learned
    batch = collate(examples)
    scores = TokenScorer(model)(batch)
    table = audited(SlidingExtraction(6, 5, base=False), (scores, batch)).rows
    lengths = table["extraction/longest_run"].tolist()
    assert max(lengths[:2]) > 24 > lengths[2]  # one run is longer than a window
    for row, one in enumerate(examples):
        n, ids, windows = int(lengths[row]), one.input_ids, windows_of(one.windows)
        hits = scores.hit[row].tolist()
        start = next(t for t in range(len(ids)) if all(hits[t : t + n]) and t + n <= len(ids))
        at, written = start, []
        while at < start + n:
            window = next(w for w in windows if w.first <= at < w.stop)
            stop = min(window.stop, start + n)
            prompt = torch.cat([ids[:1], ids[window.start : at]])
            out = model.generate(
                input_ids=prompt[None], attention_mask=torch.ones_like(prompt)[None], max_new_tokens=stop - at,
                min_new_tokens=stop - at, do_sample=False, pad_token_id=0,
            )  # fmt: skip
            written += out[0, len(prompt) :].tolist()
            at = stop
        assert written == ids[start : start + n].tolist()


def made_up(hit, logprob=None, example_id=0, member=True, ends=None):
    n = len(hit) + 1
    mask = torch.tensor([[False] + [True] * (n - 1)])
    ids = torch.full((1, n), 7)
    if ends is not None:
        ids[0, ends] = 2
    scores = TokenScores(
        torch.tensor([[0.0, *(logprob or [-0.5] * (n - 1))]]),
        torch.tensor([[False, *hit]]),
        mask,
        torch.tensor([example_id]),
        torch.tensor([member]),
    )
    return scores, {"input_ids": ids, "example_id": scores.example_id, "member": scores.member}


def test_nothing_is_logged_of_short_texts(audited):
    measure = SlidingExtraction(3, 3, base=False)
    assert audited(measure, made_up([True] * 5)).metrics == {}
    found = audited(measure, made_up([True] * 6), made_up([True, False, True, True, False, True], None, 1, False))
    assert {name: value for name, value in found.metrics.items() if not name.endswith(("_low", "_high"))} == {
        "extraction/largest_p_z": pytest.approx(math.exp(-1.5)),
        "extraction/largest_p_z_heldout": pytest.approx(math.exp(-1.5)),
        "extraction/longest_run": 6.0,
        "extraction/longest_run_heldout": 2.0,
    }
    assert set(found.metrics) <= set(measure.names())


def test_no_run_and_no_suffix_reaches_over_an_end_token(audited):
    class Ending(SlidingExtraction):
        def begin(self, subject):
            super().begin(subject)
            self.ends = frozenset([2])

    hit = [True] * 9
    found = audited(Ending(2, 3, base=False), made_up(hit, [-1.0] * 8 + [-0.1], ends=5)).metrics
    assert found["extraction/longest_run"] == 4  # tokens 1 to 4, and 6 to 9
    assert found["extraction/largest_p_z"] == pytest.approx(math.exp(-2.1))


def test_windows_too_narrow_for_a_place_are_said(audited, caplog):
    scores, batch = made_up([True] * 30)
    batch["windows"] = [Windows(8, 4, 0, 31)]
    with caplog.at_level(logging.INFO, "lit_mem"):
        found = audited(SlidingExtraction(5, 5, base=False), (scores, batch)).metrics
    assert found == {"extraction/longest_run": 7.0}  # up to the start of the second window, with 4 tokens before it
    assert "largest_p_z" in caplog.text


@pytest.mark.parametrize("option", ["prefix", "suffix"])
def test_lengths_are_at_least_one(option):
    with pytest.raises(ConfigError, match=f"SlidingExtraction.{option} is 0; expected at least 1"):
        SlidingExtraction(**{option: 0})
