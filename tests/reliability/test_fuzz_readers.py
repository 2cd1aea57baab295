"""For any content of a data file: rows, or one actionable error; never a crash or a hang."""

import io
import json
import math
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.data.encoding import Encoder
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.sources.fields import CONTRACT
from lit_mem.data.sources.phee import PHEE
from lit_mem.data.sources.places import SUFFIXES
from lit_mem.data.sources.text import TextFiles
from lit_mem.data.span_forms import are_marks, marks_of
from lit_mem.errors import LitMemError


def encoded(text):
    return text.encode("utf-8", "surrogatepass")


# The same examples in every run, so that failures are reproducible.
QUICK = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck], print_blob=False
)
# LIT_MEM_FUZZ=10000 searches more, with other examples each time.
MANY = int(os.environ.get("LIT_MEM_FUZZ", "100"))
LONG = settings(QUICK, max_examples=MANY, derandomize="LIT_MEM_FUZZ" not in os.environ, database=None)
effort = pytest.mark.parametrize("effort", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=["quick", "long"])

ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates and control characters included
HOSTILE = st.sampled_from(
    [
        "",
        " ",
        "\ufeff",
        "\x00",
        "\x1b[31m",
        "\u202eabc",
        "\u2028",
        "\ud800",
        "</s>",
        "<s>",
        "=1+1",
        "1e999",
        "\U0001f468\u200d\u2695\ufe0f",
    ]
)
TEXTS = ANY_TEXT | HOSTILE
NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63) - 1, 10**400, 5e-324, math.inf, math.nan])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SPANS = st.lists(st.fixed_dictionaries({"type": VALUES, "start": VALUES, "end": VALUES}), max_size=3) | VALUES
FURTHER = st.dictionaries(TEXTS, VALUES, max_size=2)
ROW = st.fixed_dictionaries({"text": TEXTS}, optional={"id": VALUES, "n": NUMBERS, "spans": SPANS, "group": VALUES})
ROWS = st.lists(FURTHER | st.tuples(FURTHER, ROW).map(lambda both: both[0] | both[1]), max_size=4)
PIECES = st.sampled_from(
    [b'{"text": "a"}', b"\n", b",", b"[", b"]", b"{", b"}", b'"', b"\x00", b"\xff", b"text,id", b"\r", b";"]
)
CONTENT = st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(b"".join) | TEXTS.map(encoded)
COLUMNS = st.sampled_from(
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())),
        *(pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.decimal128(38, 2), pa.bool_(), pa.null()),
        *(pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.duration("s"), pa.time64("us")),
        *(pa.list_(pa.string()), pa.list_(pa.list_(pa.float64())), pa.struct([("a", pa.int8())])),
        pa.month_day_nano_interval(),  # no maps: pyarrow crashes on a null among their entries
    ]
)


def outcome(source, encoder=None):
    """The rows of a source, tokenized if there is an encoder; None if it was rejected in one line."""
    raised = None
    try:
        rows = source.load().train
        if encoder is not None:
            encoder(rows, 0, member=True, name="training")
    except LitMemError as error:
        raised = str(error)
    if raised is not None:
        assert "\n" not in raised
        assert len(raised) < 2000
        return None
    assert len(rows)
    assert set(CONTRACT) <= set(rows.column_names)
    assert all(text.strip() and text.encode() is not None for text in rows["completion"])
    assert all(isinstance(value, str) and value for name in ("group", "origin") for value in rows[name])
    return rows


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, max_length=32, add_eos=True)


@effort
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_bytes(effort, suffix, tmp_path):
    path = tmp_path / f"a{suffix}"

    @effort
    @given(content=CONTENT)
    def check(content):
        path.write_bytes(content)
        outcome(TextFiles(str(path)))

    check()


@effort
@pytest.mark.parametrize("form", ["lines", "array"])
def test_any_values_of_json(effort, form, tmp_path, encoder):
    path = tmp_path / "a.json"

    @effort
    @given(rows=ROWS, ascii_only=st.booleans())
    def check(rows, ascii_only):
        lines = [json.dumps(row, ensure_ascii=ascii_only) for row in rows]
        content = "\n".join(lines) if form == "lines" else f"[{', '.join(lines)}]"
        path.write_bytes(encoded(content))
        read = outcome(TextFiles(str(path)), encoder)
        outcome(TextFiles(str(path), group_column="group"), encoder)
        if read is not None:
            assert list(read["completion"]) == [row["text"] for row in rows]

    check()


@effort
def test_templates_of_any_values(effort, tmp_path, encoder):
    path = tmp_path / "a.jsonl"

    @effort
    @given(rows=st.lists(st.fixed_dictionaries({"q": VALUES, "a": VALUES}), min_size=1, max_size=3))
    def check(rows):
        path.write_text("\n".join(map(json.dumps, rows)))
        read = outcome(TextFiles(str(path), prompt_template="{q}:", completion_template="{a}"), encoder)
        if read is not None:
            assert list(read["prompt"]) == [f"{row['q']}:" for row in rows]
            assert list(read["completion"]) == [str(row["a"]) for row in rows]

    check()


@effort
def test_parquet_of_any_types(effort, tmp_path, encoder):
    path = tmp_path / "a.parquet"

    @effort
    @given(
        kinds=st.dictionaries(st.sampled_from(["text", "id", "spans", "n", ""]), COLUMNS, min_size=1), data=st.data()
    )
    def check(kinds, data):
        arrays = {name: data.draw(arrow(kind)) for name, kind in kinds.items()}
        try:
            pq.write_table(pa.table(arrays), path)
        except pa.ArrowException:
            return  # parquet has no such type, or no such value
        outcome(TextFiles(str(path)), encoder)

    check()


def arrow(kind):
    """Three values of a type: anything it can hold, including dates beyond Python's range and invalid text."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return st.lists(st.binary(max_size=8) | st.just(b"text"), min_size=3, max_size=3).map(
            lambda values: pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary()).view(kind)
        )
    if pa.types.is_temporal(kind) and kind.id != pa.month_day_nano_interval().id:
        wide = pa.int32() if kind.bit_width == 32 else pa.int64()
        bound = 2 ** (kind.bit_width - 1) - 1 if not pa.types.is_time(kind) else 10**9
        return st.lists(st.integers(-bound, bound), min_size=3, max_size=3).map(
            lambda values: pa.array([abs(v) if pa.types.is_time(kind) else v for v in values], wide).view(kind)
        )
    return st.lists(VALUES, min_size=3, max_size=3).map(lambda values: lenient(values, kind))


def lenient(values, kind):
    """An array of the values that the type accepts, the others null."""
    made = []
    for value in values:
        try:
            made.append(pa.array([value], kind))
        except (pa.ArrowException, OverflowError, UnicodeError, ValueError, TypeError):
            made.append(pa.nulls(1, kind))
    return pa.concat_arrays(made)


@effort
def test_a_damaged_parquet_file(effort, tmp_path, encoder):
    """One of its bytes is changed, or its end is missing."""
    path, file = tmp_path / "a.parquet", io.BytesIO()
    pq.write_table(
        pa.table({"text": ["one text", "another"], "spans": [[{"type": "x", "start": 0, "end": 3}], []]}), file
    )
    whole = file.getvalue()

    @effort
    @given(at=st.integers(0, len(whole) - 1), bits=st.integers(1, 255), end=st.integers(0, len(whole)) | st.none())
    def check(at, bits, end):
        content = bytearray(whole)
        content[at] ^= bits
        path.write_bytes(content[:end])
        outcome(TextFiles(str(path)), encoder)

    check()


@effort
@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_a_damaged_arrow_file(effort, form, tmp_path, encoder):
    """Its metadata may point beyond its end."""
    path, file = tmp_path / "a.arrow", io.BytesIO()
    table = pa.table({"text": ["one text", "another"], "sort": pa.array(["x", None]).dictionary_encode()})
    with form(file, table.schema) as writer:
        writer.write_table(table)
    whole = file.getvalue()

    @effort
    @given(at=st.integers(0, len(whole) - 1), bits=st.integers(1, 255), end=st.integers(0, len(whole)) | st.none())
    def check(at, bits, end):
        content = bytearray(whole)
        content[at] ^= bits
        path.write_bytes(content[:end])
        outcome(TextFiles(str(path)), encoder)

    check()


@effort
def test_any_values_as_marked_pieces(effort):
    """In any form: spans that lie in the text, or one error line."""
    span = st.fixed_dictionaries(
        {},
        optional={name: VALUES for name in ("type", "label", "labels", "start", "start_offset", "end", "end_offset")},
    ) | st.lists(VALUES, max_size=4)
    values = (
        st.lists(span, max_size=3) | st.fixed_dictionaries({"entities": st.lists(span, max_size=3)}) | span | VALUES
    )

    def pieces(value, length):
        try:
            return list(marks_of(value, length, "a.jsonl:1"))
        except LitMemError as error:
            return str(error)

    @effort
    @given(value=values, length=st.integers(0, 20))
    def check(value, length):
        are_marks([value])
        found = pieces(value, length)
        if isinstance(found, str):
            assert "\n" not in found
        else:
            assert all(isinstance(kind, str) and kind.strip() and 0 <= a < b <= length for kind, a, b in found)

    check()


@effort
def test_metadata_that_says_anything(effort, tmp_path, encoder):
    """`datasets` stores column types in a parquet file's metadata, and trusts them."""
    path = tmp_path / "a.parquet"
    types = st.dictionaries(
        st.sampled_from(["text", "b"]),
        st.dictionaries(st.just("_type"), TEXTS | st.sampled_from(["Value", "Image", "ClassLabel", "List"])),
        max_size=2,
    )

    @effort
    @given(says=st.fixed_dictionaries({"info": st.fixed_dictionaries({"features": types | VALUES}) | VALUES}) | VALUES)
    def check(says):
        table = pa.table({"text": ["one text", "another"]})
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(says)}), path)
        outcome(TextFiles(str(path)), encoder)

    check()


@effort
def test_any_annotations_of_phee(effort, tmp_path):
    leaf = st.fixed_dictionaries({"text": VALUES, "start": VALUES})
    event = st.fixed_dictionaries(
        {"event_type": TEXTS | VALUES},
        optional={"Subject": st.fixed_dictionaries({"Age": leaf | VALUES}) | VALUES, "Treatment": VALUES},
    )
    notes = (
        st.lists(st.fixed_dictionaries({"events": st.lists(event | VALUES, max_size=2) | VALUES}), max_size=2) | VALUES
    )
    rows = st.fixed_dictionaries(
        {"id": st.sampled_from(["1_1", "2_1", "x"]) | VALUES, "context": TEXTS | VALUES, "annotations": notes}
    )
    for name in ("dev", "test"):
        (tmp_path / f"{name}.json").write_text('{"id": "9_9", "context": "A text.", "annotations": []}')

    @effort
    @given(rows=st.lists(rows, min_size=1, max_size=3))
    def check(rows):
        (tmp_path / "train.json").write_text("\n".join(map(json.dumps, rows)))
        outcome(PHEE(str(tmp_path)))

    check()


@pytest.mark.slow
@effort
def test_any_rows_as_case_reports(effort, tmp_path, encoder):
    good = {"text": "A text.", "id": "1", "group": "g", "spans": [], "sex": "F", "age": 40}
    for name in ("heldout", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(good))

    @effort
    @given(changes=st.lists(st.dictionaries(st.sampled_from(list(good)), VALUES, max_size=2), min_size=1, max_size=3))
    def check(changes):
        (tmp_path / "train.jsonl").write_text("\n".join(json.dumps(good | change) for change in changes))
        outcome(CaseReports(str(tmp_path)), encoder)

    check()


def test_a_value_that_python_cannot_make_leaves_the_texts_readable(tmp_path, encoder):
    """A date in the year 33658, and text that is not UTF-8, in columns other than the text."""
    path = tmp_path / "a.parquet"
    columns = {
        "text": ["one text", "another"],
        "when": pa.array([10**12, 0], pa.int64()).view(pa.timestamp("s")),
        "name": pa.array([b"\xff", b"a"], pa.binary()).view(pa.string()),
    }
    pq.write_table(pa.table(columns), path)
    assert list(outcome(TextFiles(str(path)), encoder)["completion"]) == ["one text", "another"]
