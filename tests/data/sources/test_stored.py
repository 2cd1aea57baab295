"""Columns that are packed as they are read: the values, their types and their Arrow arrays are those of a list."""

import json
import math

import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data.sources import json_rows, stored
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.json_rows import read_lines, row_table
from lit_mem.data.sources.stored import ABSENT, RowColumn, StoredColumn, typed

TEXTS = st.text(st.characters(), max_size=4) | st.sampled_from(["\ud800", "a\0b", "皮疹"])
NUMBERS = st.integers(-3, 3) | st.integers(2**60, 2**70) | st.floats()
PLAIN = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2), max_leaves=5
)
KINDS = [st.integers(-9, 9), st.floats(), TEXTS, st.booleans(), st.lists(st.integers(0, 3), max_size=2), JSON]


@st.composite
def columns(draw):
    """Values of a few kinds, in runs, some of them missing."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    values = [value for kind in kinds for value in draw(st.lists(kind, max_size=5))]
    return [draw(st.sampled_from([value, value, value, None, ABSENT])) for value in values]


@pytest.fixture(autouse=True)
def three_at_once(monkeypatch):
    for module in (stored, json_rows):
        monkeypatch.setattr(module, "AT_ONCE", 3)


def same(one, other):
    """Equal and of the same type, recursively."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(map(same, one.values(), other.values()))
    return type(one) is type(other) and one == other


@settings(deadline=None, max_examples=150)
@given(columns(), st.booleans(), st.data())
def test_values_come_back_as_they_were(values, decoded, data):
    column = StoredColumn(decoded=decoded)
    for value in values:
        column.append(value)
    assert len(column) == len(values)
    assert same(list(column), values)
    assert same(list(StoredColumn(iter(values), decoded)), values)
    part = data.draw(st.slices(len(values)))
    assert same(column[part], values[part])
    if values:
        assert same(column[-1], values[-1])
    with pytest.raises(IndexError):
        column[len(values)]


@settings(deadline=None, max_examples=150)
@given(columns(), st.booleans())
def test_their_array_is_that_of_a_list(values, decoded):
    found, expected = StoredColumn(values, decoded).arrow(), typed(values)
    assert found.type == expected.type
    assert same(found.to_pylist(), expected.to_pylist())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3), min_size=1, max_size=9))
def test_a_file_and_rows_in_memory_have_the_values_of_their_rows(rows):
    text = "\n".join(json.dumps(row) for row in rows)
    for table in (read_lines("file", text), row_table("rows", iter(rows))):
        assert table.names == list(dict.fromkeys(name for row in rows for name in row))
        for name in table.names:
            assert same(list(table.column(name)), [row.get(name, ABSENT) for row in rows])


def test_values_of_other_kinds_are_kept():
    class Other(str):
        __slots__ = ()

    values = [Other("a"), (1, 2), {1, 2}, b"x", "a"]
    column = StoredColumn(values)
    assert all(found is value for found, value in zip(column, values, strict=True))


def test_rows_are_few_objects_at_a_time(monkeypatch):
    """Of 100 rows no more than some parts of 3 are alive when the next is read."""
    monkeypatch.undo()
    for module in (stored, json_rows):
        monkeypatch.setattr(module, "AT_ONCE", 3)
    alive = most = 0

    class Row(dict):
        def __init__(self, *given):
            nonlocal alive, most
            super().__init__(*given)
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    monkeypatch.setattr(json_rows, "dict", Row, raising=False)  # what the decoder makes of an object
    monkeypatch.setattr(json_rows, "isinstance", lambda value, kinds: True, raising=False)
    monkeypatch.setattr(json_rows, "_is_too_deep", lambda row: False)
    text = "\n".join(json.dumps({"text": f"note {i}"}) for i in range(100))
    rows = read_lines("file", text)
    assert list(rows.column("text")) == [f"note {i}" for i in range(100)]
    assert most <= 9


def test_a_typed_column_is_read_in_parts_and_what_cannot_be_read_is_marked():
    bad = pa.array([b"a", b"\xff", b"c", b"d", b"e"]).view(pa.string())

    def latin(scalar):
        return scalar.as_buffer().to_pybytes().decode("latin-1")

    column = RowColumn(Dataset(pa.table({"x": bad})), "x", latin)
    assert list(column) == ["a", "ÿ", "c", "d", "e"]
    assert (column[1], column[-1], column[3:]) == ("ÿ", "e", ["d", "e"])


def test_prompts_and_groups_by_parts():
    rows = [{"q": f"Q{i}", "a": f"A{i}", "who": i // 2} for i in range(10)]
    fields = TextFields(prompt_template="{q} and {q}: ", completion_template="{a}.", group_column="who")
    made = fields.dataset(row_table("rows", rows), "rows")
    assert made["prompt"][:] == [f"Q{i} and Q{i}: " for i in range(10)]
    assert made["completion"][:] == [f"A{i}." for i in range(10)]
    assert made["group"][:] == [str(i // 2) for i in range(10)]
    assert made["origin"][:] == [f"rows:{i}" for i in range(1, 11)]
