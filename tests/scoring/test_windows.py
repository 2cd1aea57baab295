"""Windows over a long text: each token counts once, with as much context as fits."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.scoring.windows import context_begins, first_read, positions_of, windows_of
from lit_mem.types import Windows


@st.composite
def texts(draw):
    tokens = draw(st.integers(2, 40))
    length = draw(st.integers(tokens, 300))
    return Windows(tokens, draw(st.integers(1, tokens)), draw(st.sampled_from([0, 1])), length)


@given(texts())
def test_each_token_counts_once_and_in_order(text):
    counted = [t for window in windows_of(text) for t in range(window.first, window.stop)]
    assert counted == list(range(text.length))


@given(texts())
def test_windows_are_full_and_not_longer(text):
    found = windows_of(text)
    sizes = [len(positions_of(window, text.head)) for window in found]
    assert set(sizes) == {min(text.tokens, text.length)}
    for window in found:
        positions = positions_of(window, text.head).tolist()
        assert positions == sorted(set(positions))
        assert positions[-1] < text.length
    assert found[-1].stop == text.length


@given(texts())
def test_no_window_begins_earlier_for_a_later_token(text):
    """The window in which a token counts is the first that contains it: the one with the most context."""
    found = windows_of(text)
    for k, window in enumerate(found):
        for t in (window.first, window.stop - 1):
            assert all(not (earlier.start <= t < earlier.stop) for earlier in found[:k])


@given(texts())
def test_a_token_has_the_promised_context(text):
    begins = context_begins(text, text.length + 3)
    assert begins[text.length :].tolist() == [0, 0, 0]
    for t in range(text.head, text.length):
        before = t - int(begins[t])
        assert before >= min(t - text.head, text.tokens - text.head - text.stride)
        assert before + text.head >= 1 or t == 0


def test_a_window_has_no_more_further_tokens_than_the_stride():
    text = Windows(tokens=10, stride=3, head=1, length=100)
    assert {window.stop - window.first for window in windows_of(text)[1:]} == {3}


@given(texts(), st.data())
def test_the_first_window_that_is_read_holds_the_first_scored_token(text, data):
    first = data.draw(st.integers(max(1, text.head), text.length - 1))
    scored = torch.arange(text.length + 2) >= first
    scored[text.length :] = False
    positions = first_read({"windows": [None, text]}, 1, scored)
    assert first in positions.tolist()
    own = positions[scored[positions]]
    assert own.tolist() == list(range(first, int(own[-1]) + 1))


def test_a_text_without_windows_is_read_whole():
    for batch in ({}, {"windows": [None]}):
        assert first_read(batch, 0, torch.ones(4, dtype=torch.bool)).tolist() == [0, 1, 2, 3]
    assert context_begins(None, 3).tolist() == [0, 0, 0]
