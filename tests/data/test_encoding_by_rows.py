"""The encoder, which works on many texts at a time, against one text at a time in plain Python."""

import json

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data import encoding
from lit_mem.data import examples as packing
from lit_mem.data.encoding import Encoder
from lit_mem.errors import DataError
from lit_mem.types import IGNORED

LETTERS = "ab A.é皮疹🙂ไ\u0301\n<>s/"
PROMPTS = st.sampled_from(["", "", "Q: ", "皮疹 ", "é\u0301", "<s>"]) | st.text(LETTERS, max_size=6)
COMPLETIONS = st.text(LETTERS, min_size=1, max_size=30) | st.just("<s>A rash followed, 皮疹.")


@st.composite
def rows(draw):
    completion = draw(COMPLETIONS)
    marks = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(completion) - 1))
        end = draw(st.integers(start + 1, len(completion)))
        marks.append({"type": draw(st.sampled_from(["drug", "名"])), "start": start, "end": end})
    age = draw(st.none() | st.integers(0, 3) | st.just(0.5))
    return {"prompt": draw(PROMPTS), "completion": completion, "spans": marks, "age": age}


def by_row(tokenizer, row, max_length, add_eos):
    """Ids, labels, appended, text and spans; None if no token is left."""
    prompt, completion = row["prompt"], row["completion"]
    text, eos = prompt + completion, [tokenizer.eos_token_id] * add_eos
    found = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = found["input_ids"], found["offset_mapping"]
    if ids[:2] == [tokenizer.bos_token_id] * 2 and tokenizer.bos_token_id is not None:
        ids, offsets = ids[1:], offsets[1:]
    labels = [IGNORED, *[i if end > len(prompt) else IGNORED for i, (_, end) in zip(ids, offsets, strict=True)][1:]]
    whole = (ids + eos)[:max_length]
    labels = (labels + eos)[:max_length]
    appended = len(eos) if len(ids + eos) <= max_length else 0
    scored = [i < len(labels) - appended and label != IGNORED for i, label in enumerate(labels)]
    if not any(scored):
        return None
    if len(ids) > max_length:
        completion = completion[: max(end for _, end in offsets[:max_length]) - len(prompt)]
    spans = []
    for mark in row["spans"]:
        a, b = len(prompt) + mark["start"], len(prompt) + mark["end"]
        over = [
            i
            for i, (start, end) in enumerate(offsets)
            if any(not character.isspace() for character in text[max(start, a) : min(end, b)])
        ]
        if over and over[-1] < len(scored) and all(scored[over[0] : over[-1] + 1]):
            spans.append((mark["type"], over[0], over[-1] + 1))
    return whole, labels, appended, completion, spans


@settings(deadline=None, max_examples=80)
@given(table=st.lists(rows(), min_size=1, max_size=7), max_length=st.integers(2, 40), add_eos=st.booleans())
def test_many_at_a_time_are_as_one_at_a_time(tokenizer, table, max_length, add_eos):
    expected = [by_row(tokenizer, row, max_length, add_eos) for row in table]
    columns = {name: [row[name] for row in table] for name in ("prompt", "completion", "age")}
    columns["spans"] = [json.dumps(row["spans"]) for row in table]
    columns["origin"] = [f"file:{i}" for i in range(1, len(table) + 1)]
    encoder = Encoder(tokenizer, max_length, add_eos)
    if None in expected:
        with pytest.raises(DataError, match=f"file:{expected.index(None) + 1}: no token"):
            encoder(Dataset.from_dict(columns), 5, True, "training")
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "AT_ONCE", 3)  # several parts
        patch.setattr(packing, "AT_ONCE", 2)
        found = encoder(Dataset.from_dict(columns), 5, True, "training")
    assert len(found) == len(table)
    for i, (example, row, wanted) in enumerate(zip(found, table, expected, strict=True)):
        record = example.record
        spans = [tuple(span) for span in record.spans]
        got = (example.input_ids.tolist(), example.labels.tolist(), example.appended, record.text, spans)
        assert got == wanted
        assert example.input_ids.dtype == example.labels.dtype == torch.int64
        assert (example.example_id, example.member, record.origin) == (5 + i, True, f"file:{i + 1}")
        assert record.prompt == row["prompt"]
        assert record.attributes == ({} if row["age"] is None else {"age": float(row["age"])})
