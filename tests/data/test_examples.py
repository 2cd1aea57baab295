"""Packed examples are restored unchanged, individually, in slices and in concatenations."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data.deduplicate import count_duplicates
from lit_mem.data.encoding import Encoded
from lit_mem.data.example_sets import extent, token_ids
from lit_mem.data.examples import AT_ONCE, Examples, lengths_of
from lit_mem.types import IGNORED, Record, Span

TEXTS = st.text(st.characters(), max_size=8)  # lone surrogates too
ATTRIBUTES = st.dictionaries(
    TEXTS,
    TEXTS | st.floats(allow_nan=False) | st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    max_size=3,
)
SPANS = st.lists(st.builds(Span, TEXTS, st.integers(0, 9), st.integers(0, 9)), max_size=3)
RECORDS = st.builds(Record, TEXTS, TEXTS, ATTRIBUTES, SPANS, st.integers(0, 2**40), TEXTS)
MAYBE = st.none() | RECORDS


@st.composite
def encoded(draw, records=MAYBE):
    ids = draw(st.lists(st.integers(0, draw(st.sampled_from([9, 300, 70_000, 2**40]))), min_size=1, max_size=20))
    kept = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    labels = [i if keep else IGNORED for i, keep in zip(ids, kept, strict=True)]
    if draw(st.booleans()) and draw(st.booleans()):
        labels = draw(st.lists(st.integers(-100, 9), min_size=len(ids), max_size=len(ids)))  # not those of the ids
    return Encoded(
        torch.tensor(ids),
        torch.tensor(labels),
        draw(st.integers(-(2**70), 2**70)),
        draw(st.booleans()),
        draw(st.integers(0, 3)),
        draw(records),
        draw(st.integers(0, 3)),
    )


def said(value):
    """The full content of a value, with types: 1 is not True here."""
    if isinstance(value, Encoded):
        return {field.name: said(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Record):
        return {name: said(getattr(value, name)) for name in Record.__slots__}
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {name: said(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return type(value), [said(one) for one in value]
    return type(value), value


def all_said(examples):
    return [said(example) for example in examples]


@settings(deadline=None, max_examples=60)
@given(examples=st.lists(encoded(), max_size=12) | st.lists(encoded(RECORDS), max_size=12))
def test_any_example_comes_back_as_it_was(examples):
    packed = Examples(iter(examples))
    assert len(packed) == len(examples)
    assert all_said(packed) == all_said(examples)
    assert all_said(pickle.loads(pickle.dumps(packed))) == all_said(examples)
    assert lengths_of(packed) == lengths_of(examples)
    assert extent(packed) == extent(examples)


@settings(deadline=None, max_examples=40)
@given(st.lists(encoded(RECORDS), min_size=1, max_size=9), st.lists(encoded(RECORDS), max_size=5), st.data())
def test_parts_and_sums_are_those_of_a_list(first, second, data):
    packed = Examples(first)
    chosen = data.draw(st.lists(st.integers(-len(first), len(first) - 1), max_size=12))
    assert all_said(packed.select(chosen)) == all_said([first[i] for i in chosen])
    part = data.draw(st.slices(len(first)))
    assert all_said(packed[part]) == all_said(first[part])
    assert all_said(packed[part] + second) == all_said(first[part] + second)
    assert all_said(second + packed[part]) == all_said(second + first[part])
    assert all_said(packed + Examples(second)[::-1]) == all_said(first + second[::-1])
    assert lengths_of(packed[part] + second) == lengths_of(first[part] + second)
    assert extent(packed[part]) == extent(first[part])
    assert list(packed[part].texts()) == [example.record.text for example in first[part]]
    assert said(packed[-1]) == said(first[-1])
    with pytest.raises(IndexError):
        packed[len(first)]


def simple(i, text="a", member=True):
    ids = torch.tensor([1, 5 + i % 7, 9])
    return Encoded(ids, ids.clone(), i, member, record=Record(text))


def test_what_is_changed_in_one_example_is_changed_nowhere_else():
    packed = Examples([simple(0), simple(1)])
    packed[0].input_ids.zero_()
    packed[0].labels.zero_()
    packed[0].record.attributes["x"] = 1.0
    assert all_said(packed) == all_said([simple(0), simple(1)])


def test_an_iterator_is_packed_some_at_a_time():
    alive, most = 0, 0

    class Row:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    def made():
        for i in range(3 * AT_ONCE):
            example = simple(i, str(i))
            example.input_ids.row = Row()  # lives as long as the tensor
            yield example

    packed = Examples(made())
    assert [example.record.text for example in packed[:: AT_ONCE + 1]] == ["0", str(AT_ONCE + 1), str(2 * AT_ONCE + 2)]
    assert most <= 2 * AT_ONCE + 1


def test_a_subclass_of_a_record_stays_one():
    class Other(Record):
        pass

    (found,) = Examples([replace(simple(0), record=Other("a"))])
    assert type(found.record) is Other


def test_tokens_take_a_few_bytes_each():
    """Beside 8 bytes an id and 8 a label, and the objects around them."""
    n, length = 2000, 100
    ids = torch.arange(n * length).remainder(30_000).reshape(n, length)
    packed = Examples(Encoded(row, row.clone(), i, True, record=Record(f"text {i}")) for i, row in enumerate(ids))
    assert len(pickle.dumps(packed)) < 2.5 * n * length  # 2 bytes an id, a bit a label, and the texts


def test_duplicates_are_noted_in_all_parts():
    packed = Examples([simple(0, "Fever."), simple(1, "fever"), simple(2, "Rash.")])
    others = Examples([simple(3, "FEVER", member=False), replace(simple(4, member=False), record=None)])
    probe = packed.select([1, 2])
    count_duplicates(packed + others, members=packed)
    assert [example.record.duplicates for example in packed] == [1, 1, 0]
    assert [example.record.duplicates for example in probe] == [1, 0]
    assert others[0].record.duplicates == 2
    assert others[1].record is None


def test_token_ids_by_example():
    packed = Examples(simple(i) for i in range(5)).select([3, 1])
    found = token_ids(packed)
    assert list(found) == [3, 1]
    assert {i: ids.tolist() for i, ids in found.items()} == {i: simple(i).input_ids.tolist() for i in (3, 1)}
    with pytest.raises(KeyError):
        found[0]


def test_there_may_be_none():
    none = Examples()
    assert (len(none), list(none), lengths_of(none), extent(none)) == (0, [], [], (0, 0))
    assert all_said(none + [simple(0)]) == [said(simple(0))]  # noqa: RUF005  (the sum is what is tested)
    assert none.numbers("member").dtype == np.int64
