import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.data.sources.text import TextFiles
from lit_mem.errors import ConfigError, DataError

FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(str.strip)
LINE = TEXT.filter(lambda text: not set(text) & {"\r", "\n"})


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def load(path, **options):
    return TextFiles(train=path, **options).load().train


def rejected(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


BAD = [
    ("a.jsonl", "", ["empty"]),
    ("a.jsonl", "  \n\n", ["empty"]),
    ("a.json", "[]", ["empty"]),
    ("a.csv", "text\n", ["header", "no rows"]),
    ("a.docx", "x", ["'.docx'", ".jsonl"]),
    ("a.jsonl", '{"text": "ok"}\n{"text": oh}\n', ["line 2", "column 10", "malformed JSON"]),
    ("a.json", '[{"text": "ok"},\n {"text": oh}]', ["line 2, column 11", "malformed JSON"]),
    ("a.json", '[{"text": "ok"}', ["malformed JSON", "not closed"]),
    ("a.json", '[{"text": "ok"}] x', ["column 18", "extra data"]),
    ("a.json", '[{"text": "ok"},]', ["column 17", "comma"]),
    ("a.json", '[{"text": "ok"} {"text": "ok"}]', ["column 17", "expected ','"]),
    ("a.json", '{\n"text": "ok"\n}', ["line 1", "several lines", "one object per line"]),
    ("a.jsonl", '{"text": "ok"}\n["x"]\n', ["line 2", "found list", "expected an object"]),
    ("a.json", '[{"text": "ok"}, "x"]', ["row 2", "found str", "expected an object"]),
    ("a.jsonl", '{"text": "a", "text": "b"}\n', ["line 1", "'text'", "twice"]),
    ("a.jsonl", '{"id": 1, "note": "x"}\n', ["no column 'text'", "'id', 'note'"]),
    ("a.jsonl", '{"text": "ok"}\n{"id": 1}\n', ["line 2", "'text'", "missing"]),
    ("a.jsonl", '{"text": 5}\n', ["line 1", "'text'", "found int", "expected a string"]),
    ("a.jsonl", '{"text": true}\n', ["line 1", "'text'", "found bool"]),
    ("a.jsonl", '{"text": null}\n', ["line 1", "'text'", "found null"]),
    ("a.jsonl", '{"text": ""}\n', ["line 1", "'text'", "empty string"]),
    ("a.jsonl", '{"text": " \\n\\t"}\n', ["line 1", "'text'", "only whitespace"]),
    ("a.jsonl", '{"text": "a\\u0000b"}\n', ["line 1", "'text'", "NUL at character 2"]),
    ("a.jsonl", '{"text": "ab\\ud800"}\n', ["line 1", "unpaired surrogate at character 3"]),
    ("a.jsonl", '{"text": "ab", "c\\u0000d": 1}\n', ["line 1", "name of field 'c\\x00d'", "a NUL"]),
    ("a.csv", "text,c\0d\nab,1\n", ["line 1", "name of column 'c\\x00d'", "a NUL"]),
    ("a.jsonl", f'{{"text": {"9" * 5000}}}', ["line 1", "too many digits"]),
    ("a.jsonl", "[" * 200_000, ["line 1", "malformed JSON"]),
    ("a.jsonl", b'{"text": "ok"}\n{"text": "\xe9"}\n', ["line 2", "0xe9", "offset 25", "UTF-8"]),
    ("a.txt", "one\n\nthree\n", ["1 of 3 rows", "line 2", "empty string"]),
    ("a.csv", "text,text\na,b\n", ["line 1", "'text'", "twice"]),
    ("a.csv", "text,\na,b\n", ["line 1", "column 2 has no name"]),
    ("a.csv", "text,n\na,1\nb\n", ["line 3", "found 1 fields, expected 2"]),
    ("a.csv", 'text,n\n"a\nb",1\nc,2,3\n', ["line 4", "found 3 fields"]),
    ("a.csv", 'text\nok\n"open\n', ["line 3", "malformed CSV"]),
    ("a.csv", "id,note\n1,x\n", ["no column 'text'", "'id', 'note'", "first line"]),
    ("a.csv", "text,n\n  ,1\n", ["line 2", "'text'", "only whitespace"]),
    ("a.parquet", "not parquet", ["not a parquet file"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), BAD)
def test_bad_input_is_named(tmp_path, name, content, parts):
    message = rejected(put(tmp_path, name, content))
    assert [part for part in parts if part not in message] == []


def test_bad_rows_are_counted_and_five_listed(tmp_path):
    rows = ['{"text": "fine"}', "{oops", *['{"text": null}'] * 6]
    message = rejected(put(tmp_path, "a.jsonl", "\n".join(rows)))
    assert "7 of 8 rows" in message
    assert [f"line {n}" in message for n in range(1, 9)] == [False, *[True] * 5, False, False]
    assert message.endswith("and 2 more")


def test_a_message_never_shows_the_text_of_a_file_without_header(tmp_path):
    secret = "The patient, whose name is secret, had fever for seven days."
    assert "secret" not in rejected(put(tmp_path, "a.csv", f'"{secret}"\nmore\n'))


def test_absent_file_says_what_is_there(tmp_path):
    put(tmp_path, "train.jsonl", '{"text": "a"}')
    assert "'train.jsonl'" in rejected(str(tmp_path / "trian.jsonl"))  # codespell:ignore
    assert "'train.jsonl'" in rejected(str(tmp_path / "train.csv"))
    assert "nowhere' does not exist" in rejected(str(tmp_path / "nowhere" / "train.jsonl"))


@pytest.mark.parametrize(
    ("column", "parts"),
    [
        (pa.array(["a", None]), ["row 2", "'text'", "null"]),
        (pa.array([1, 2]), ["row 1", "'text'", "found int"]),
        (pa.array(["a", " "]), ["row 2", "only whitespace"]),
        (pa.array([b"a", b"\xff"]).view(pa.string()), ["row 2", "'text'", "not UTF-8"]),
        (pa.array([], pa.string()), ["empty"]),
    ],
)
def test_bad_parquet_rows_are_named(tmp_path, column, parts):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": column}), path)
    message = rejected(str(path))
    assert [part for part in parts if part not in message] == []


def test_parquet_with_a_column_twice(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert "'text' occurs twice" in rejected(str(path))


@pytest.mark.slow
@FAST
@given(texts=st.lists(TEXT, min_size=1, max_size=5))
@pytest.mark.parametrize("suffix", ["jsonl", "lines.json", "json", "csv", "parquet"])
def test_any_text_survives(tmp_path, suffix, texts):
    path = tmp_path / f"a.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps([{"text": text} for text in texts], indent=1), "utf-8")
    elif suffix == "csv":
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([["n", "text"], *([n, text] for n, text in enumerate(texts))])
        path.write_bytes(buffer.getvalue().encode())
    elif suffix == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
        path.write_bytes("".join(lines).encode())
    rows = load(str(path))
    assert list(rows["completion"]) == texts
    assert set(rows["prompt"]) == {""}
    assert rows["group"] == rows["origin"]
    assert len(set(rows["origin"])) == len(texts)


@pytest.mark.slow
@FAST
@given(texts=st.lists(LINE, min_size=1, max_size=5), end=st.sampled_from(["\n", "\r\n"]))
def test_any_line_survives_txt(tmp_path, texts, end):
    path = put(tmp_path, "a.txt", "\ufeff" + end.join(texts) + end)
    assert list(load(path)["completion"]) == texts


def test_origin_is_the_line_even_after_quoted_line_breaks(tmp_path):
    path = put(tmp_path, "a.csv", 'text,n\n"one\ntwo",1\n\nthree,2\n')
    assert list(load(path)["origin"]) == ["a.csv:2", "a.csv:5"]


def test_a_byte_order_mark_and_a_long_field_are_fine(tmp_path):
    long = "word " * 60_000
    before = csv.field_size_limit()
    rows = load(put(tmp_path, "a.csv", f"\ufefftext\n{long}\n"))
    assert list(rows["completion"]) == [long]
    assert csv.field_size_limit() == before


def test_files_of_one_name_do_not_share_groups(tmp_path):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(put(tmp_path / folder, "rows.txt", "one\ntwo\n"))
    corpus = TextFiles(train=paths[0], heldout=paths[1]).load()
    assert corpus.test is None
    assert not set(corpus.train["group"]) & set(corpus.heldout["group"])


def grouped(folder, name, column, n=20, start=0):
    rows = [{"text": f"Note {i} of {column} has several words.", column: f"x{i // 2}"} for i in range(start, start + n)]
    return put(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(("column", "groups"), [("person", 10), ("patient_id", 10), ("label", 20)])
def test_auto_takes_the_column_of_groups_that_init_takes(column, groups, tmp_path, caplog):
    caplog.set_level("INFO", "lit_mem")
    rows = load(grouped(tmp_path, "a.jsonl", column), group_column="auto")
    assert len(set(rows["group"])) == groups
    assert (repr(column) in caplog.text) == (groups == 10)


def test_auto_takes_no_column_that_another_set_lacks_and_one_of_its_own_name(tmp_path):
    train, heldout = grouped(tmp_path, "a.jsonl", "person"), grouped(tmp_path, "b.jsonl", "who", start=50)
    corpus = TextFiles(train, heldout, group_column="auto").load()
    assert len(set(corpus.train["group"])) == 20
    assert len(set(load(grouped(tmp_path, "c.jsonl", "auto"), group_column="auto")["group"])) == 10


def test_bundled_texts_are_files_too():
    assert len(load("asset:notes")) == 210
    assert len(set(load("asset:notes", group_column="auto")["group"])) < 210
    corpus = TextFiles("asset:case_reports").load()
    assert (len(corpus.train), len(corpus.heldout), len(corpus.test)) == (600, 600, 300)
    with pytest.raises(ConfigError, match="case_reports, notes, tiny_llama"):
        load("asset:none")
