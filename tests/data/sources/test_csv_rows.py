"""CSV and TSV as written by programs and spreadsheets."""

import csv
import io
import logging

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.data.sources import TextFiles
from lit_mem.data.sources.csv_rows import read_csv
from lit_mem.data.sources.reading import Reading
from lit_mem.errors import ConfigError, DataError

FAST = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@pytest.fixture
def load(tmp_path, caplog):
    """Reads a file of this content: its rows, and the lines that were logged."""

    def run(content, name="a.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        caplog.clear()
        with caplog.at_level(logging.INFO, "lit_mem"):
            rows = TextFiles(str(path), **options).load().train
        return rows, [record.getMessage() for record in caplog.records]

    return run


def column(table, name="text"):
    return table.column(name)


@FAST
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5),
    sign=st.sampled_from(",;\t|:~ "),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    named=st.booleans(),
)
def test_what_python_writes_in_any_dialect_is_read_back(rows, sign, quoting, end, named):
    if quoting == csv.QUOTE_MINIMAL:  # characters not in `end` are written unquoted, and so end a line
        rows = [tuple(cell.translate({ord(c): None for c in {*"\r\n"} - {*end}}) for cell in row) for row in rows]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=sign, quoting=quoting, lineterminator=end).writerows([("text", "other"), *rows])
    table = read_csv("a.csv", buffer.getvalue(), Reading(delimiter=sign if named or sign in ":~ " else None))
    assert list(zip(column(table), column(table, "other"), strict=True)) == rows


@FAST
@given(
    texts=st.lists(CELL.filter(str.strip).filter(lambda text: "\r" not in text), min_size=1, max_size=4),  # not quoted
    sep=st.sampled_from(",;\t"),
    index=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_pandas_writes_is_read_back(tmp_path, texts, sep, index, encoding):
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": texts, "n": range(len(texts))}).to_csv(path, sep=sep, index=index, encoding=encoding)
    rows = TextFiles(str(path), encoding=encoding).load().train
    assert rows["completion"][:] == texts
    assert rows.column_names == ["prompt", "completion", "group", "origin", "n"]


def test_the_sign_that_parts_columns_is_seen_and_said_once(load):
    semicolons = 'text;n\n"a;b";1,5\n"c, d";2,5\n'
    rows, said = load(semicolons)
    assert (rows["completion"][:], rows["n"][:]) == (["a;b", "c, d"], ["1,5", "2,5"])
    assert len([line for line in said if "';'" in line and "data.source.delimiter" in line]) == 1
    rows, said = load("text,n\na;b,1\n")
    assert rows["completion"][:] == ["a;b"]
    assert not [line for line in said if "delimiter" in line]
    assert load("text,n\na;b,1\n", delimiter=",")[0]["completion"][:] == ["a;b"]
    # Each row has two fields by either sign; the usual one is taken.
    assert load("text;x,n\na;1,2\n", text_column="text;x")[0]["completion"][:] == ["a;1"]
    assert load("text\na, b; c\n".replace(",", "\t"), text_column="text")[0]["completion"][:] == ["a\t b; c"]
    assert load("sep=;\r\ntext;n\r\na,b;1\r\n")[0]["origin"][:] == ["a.csv:3"]
    with pytest.raises(DataError, match="no column 'text'"):
        load("text;n\na;1\n", delimiter=",")


def test_tabs(load):
    assert load('text\tn\na\t1\n"b\tc"\t2\n', "a.tsv")[0]["completion"][:] == ["a", "b\tc"]
    assert load("text\tn\na\t1\n")[0]["completion"][:] == ["a"]
    assert load("text|n\na|1\n", "a.tsv", delimiter="|")[0]["completion"][:] == ["a"]
    for tab in ("\\t", "tab", "\t"):
        assert load("text\tn\na\t1\n", "a.txt.csv", delimiter=tab)[0]["completion"][:] == ["a"]
    rows, said = load('text\tn\n"Yes," he said\t1\nan 8" pipe\t2\n"open\t3\n', "a.tsv")
    assert rows["completion"][:] == ['"Yes," he said', 'an 8" pipe', '"open']
    assert len([line for line in said if "quotes are unbalanced" in line]) == 1
    with pytest.raises(DataError, match="line 2: malformed CSV"):
        load('text\tn\n"Yes," he said\n', "a.tsv")


@pytest.mark.parametrize(
    ("content", "text_column", "left"),
    [
        (",text\n0,a\n", "text", "'Unnamed: 0'"),
        ("Unnamed: 0,text\n0,a\n", "text", "'Unnamed: 0'"),
        (",Unnamed: 0,text\n0,0,a\n", "text", "'Unnamed: 0.1', 'Unnamed: 0'"),
        ("Unnamed: 0,n\na,1\n", "Unnamed: 0", None),
    ],
)
def test_row_numbers_of_pandas_are_skipped_unless_requested(load, content, text_column, left):
    rows, said = load(content, text_column=text_column)
    assert rows["completion"][:] == ["a"]
    assert [line for line in said if "pandas index" in line] == (
        [] if left is None else [line for line in said if left in line]
    )
    assert not [name for name in rows.column_names if name.startswith("Unnamed") and left]


def test_an_encoding_is_named_and_never_guessed(load):
    text = "naïve café — “x” €"
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        assert load(f"text\n{text}\n".encode(encoding), encoding=encoding)[0]["completion"][:] == [text]
    with pytest.raises(DataError, match=r"line 2: found byte 0xef .*expected UTF-8 text \(set data\.source\.encoding"):
        load(f"text\n{text}\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"0x81 .*expected cp1252 text"):
        load(b"text\n\x81\n", encoding="cp1252")


@pytest.mark.parametrize("options", [{"delimiter": ";;"}, {"delimiter": ""}, {"delimiter": "a"}, {"delimiter": '"'},
                                     {"delimiter": "\n"}, {"encoding": "latin-99"}, {"encoding": "rot13"},
                                     {"encoding": ""}, {"encoding": "a\0"}])  # fmt: skip
def test_options_that_cannot_be_are_rejected(options):
    with pytest.raises(ConfigError, match=f"data.source.{next(iter(options))} is "):
        TextFiles("a.csv", **options)
