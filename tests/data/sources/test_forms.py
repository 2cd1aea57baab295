"""Files in practice: columns of odd types, integers as floats, chats, folders of notes, compressed files."""

import datetime
import decimal
import gzip
import json
import logging
import uuid

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lit_mem.data import TextDataModule
from lit_mem.data.sources import HubDataset, TextFiles
from lit_mem.errors import DataError

N = 4
TEXTS = [f"Patient {n} took lithium." for n in range(N)]

ODD = {
    "map": pa.array([[("source", "ehr")]] * N, pa.map_(pa.string(), pa.string())),
    "list of maps": pa.array([[[("a", "b")]]] * N, pa.list_(pa.map_(pa.string(), pa.string()))),
    "struct with a map": pa.array([{"a": [("b", "c")]}] * N, pa.struct([("a", pa.map_(pa.string(), pa.string()))])),
    "list view": pa.array([[1, 2]] * N, pa.list_view(pa.int64())),
    "uuid": pa.array([uuid.UUID(int=n).bytes for n in range(N)], pa.uuid()),
}
FINE = {
    "decimal": pa.array([decimal.Decimal("1.50")] * N, pa.decimal128(5, 2)),
    "duration": pa.array([datetime.timedelta(1)] * N, pa.duration("us")),
    "binary": pa.array([b"\xff\0"] * N),
    "time": pa.array([datetime.time(1, 2)] * N, pa.time64("us")),
    "timestamp": pa.array([datetime.datetime(2020, 1, 1)] * N, pa.timestamp("us")),
    "struct": pa.array([{"a": 1, "b": ["x"]}] * N),
    "nothing": pa.nulls(N),
    "dictionary": pa.array(["a"] * N).dictionary_encode(),
}


def parquet(folder, **columns):
    path = folder / "notes.parquet"
    pq.write_table(pa.table({"text": TEXTS, **columns}), path)
    return str(path)


def load(path, **options):
    return TextFiles(path, **options).load().train


def rejected(make, *parts):
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    return message


# -- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ODD, *FINE])
def test_an_unused_unreadable_column_does_not_prevent_reading_texts(kind, tmp_path, caplog):
    path = parquet(tmp_path, extra=(ODD | FINE)[kind], age=pa.array([1, 2, 3, 4]))
    data = TextDataModule(TextFiles(path), tokenizer="asset:tiny_llama", heldout_fraction=0.5, check=False)
    with caplog.at_level(logging.WARNING, "lit_mem"):
        data.setup("fit")
    assert sorted(e.record.text for e in [*data.train, *data.heldout]) == TEXTS
    assert sorted(e.record.attributes["age"] for e in [*data.train, *data.heldout]) == [1, 2, 3, 4]
    named = [line for line in caplog.messages if "'extra'" in line]
    assert len(named) == (kind in ODD)
    assert all("unsupported type" in line and str(ODD[kind].type)[:4] in line for line in named)


def test_a_requested_column_is_named_with_its_type(tmp_path):
    path = parquet(tmp_path, extra=ODD["map"])
    for option in ("text_column", "group_column"):
        rejected(lambda option=option: load(path, **{option: "extra"}), "'extra'", "map<string, string", "expected")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


def test_a_folder_of_the_hub_with_such_a_column_is_rejected_in_one_line(hub):
    parquet(hub, extra=ODD["map"])
    rejected(HubDataset(str(hub)).load, "map<string, string", "TextFiles skips it")


def test_pictures_and_structs_of_the_hub_are_not_opened(hub):
    """The bytes are not an image, and are not decoded."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "scan": datasets.Image(), "lab": {"a": datasets.Value("int64")}}
    )
    rows = {"text": TEXTS, "scan": [{"bytes": b"no picture", "path": None}] * N, "lab": [{"a": 1}] * N}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(hub / "train.parquet")
    data = TextDataModule(HubDataset(str(hub)), tokenizer="asset:tiny_llama", heldout_fraction=0.5, check=False)
    data.setup("fit")
    assert sorted(e.record.text for e in [*data.train, *data.heldout]) == TEXTS


def test_all_columns_that_lack_are_named_at_once_with_their_options(tmp_path):
    path = parquet(tmp_path, age=pa.array([1] * N))
    rejected(
        lambda: load(path, prompt_template="{q} {age}", completion_template="{a}", group_column="who"),
        "no columns 'q' (data.source.prompt_template), 'a' (data.source.completion_template), "
        "'who' (data.source.group_column)",
        "found: 'text', 'age'",
    )
    rejected(lambda: load(path, text_column="note"), "no column 'note' (data.source.text_column); found: 'text', 'age'")


# -- groups ----------------------------------------------------------------------------------------------------------


def groups(path):
    return list(load(path, group_column="who")["group"])


def test_groups_are_compared_by_value_whatever_kind_of_file_holds_them(tmp_path):
    (tmp_path / "a.csv").write_text("text,who\na,12.0\nb,12\nc,p12.0\nd,1.50\n")
    assert groups(str(tmp_path / "a.csv")) == ["12", "12", "p12.0", "1.50"]
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "who": 12.0}\n{"text": "b", "who": 12}\n{"text": "c", "who": "12"}\n'
    )
    assert groups(str(tmp_path / "a.jsonl")) == ["12"] * 3
    for values in ([12.0, 13.0, 1e15, -3.0], [decimal.Decimal(10**15), 13, 12, -3], [12, 13, 10**15, -3]):
        assert sorted(groups(parquet(tmp_path, who=pa.array(values)))) == ["-3", "1000000000000000", "12", "13"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, float("nan"), 2.0, 3.0], "found nan"),
        ([1.0, None, 2.0, 3.0], "found null"),
        ([1.0, 1.5, 2.0, 3.0], "found a fractional number"),
    ],
)
def test_a_group_that_is_not_an_integer_is_reported_by_row(values, found, tmp_path):
    path = parquet(tmp_path, who=pa.array(values, from_pandas=False))
    message = rejected(lambda: groups(path), "1 of 4 rows", "row 2, field 'who'", found)
    assert "found float, expected a text or number" not in message


# -- unsupported formats --------------------------------------------------------------------------------------------

CHATS = {
    "messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "SECRET"}],
    "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "SECRET"}],
}


@pytest.mark.parametrize("column", CHATS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("asked", [True, False])
def test_chats_are_named(column, suffix, asked, tmp_path):
    path = tmp_path / f"chats.{suffix}"
    rows = {column: [CHATS[column]] * 3, "id": ["a", "b", "c"]}
    if suffix == "parquet":
        pq.write_table(pa.table(rows), path)
    else:
        path.write_text(
            "".join(json.dumps({column: chat, "id": i}) + "\n" for chat, i in zip(*rows.values(), strict=True))
        )
    keys = "{" + ", ".join(CHATS[column][0]) + "}"
    option = {"text_column": column} if asked else {}
    message = rejected(
        lambda: load(str(path), **option),
        "chats",
        f"'{column}'",
        keys,
        "data.source.text_column",
        "expected" if asked else "no column 'text'",
    )
    assert "SECRET" not in message


def test_lists_that_are_not_chats_are_reported_by_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": [1, 2]}\n')
    rejected(lambda: load(str(tmp_path / "a.jsonl")), "line 1, field 'text': found list")


def test_a_file_of_lines_a_split_is_read_as_such(hub):
    (hub / "train.txt").write_text("One.\nTwo.\n")
    (hub / "test.txt").write_text("Three.\n")
    corpus = HubDataset(str(hub), heldout_split="test").load()
    assert (list(corpus.train["completion"]), list(corpus.heldout["completion"])) == (["One.", "Two."], ["Three."])


# -- compressed files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", '{"text": "Fïrst."}\n{"text": "Second."}\n'),
        ("a.json.GZ", '[{"text": "Fïrst."}, {"text": "Second."}]'),
        ("a.csv.gz", "text\nFïrst.\nSecond.\n"),
        ("a.txt.gz", "Fïrst.\nSecond.\n"),
    ],
)
def test_compressed_files_are_read(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content.encode()))
    rows = load(str(path))
    assert list(rows["completion"]) == ["Fïrst.", "Second."]
    path.write_bytes(path.read_bytes()[:-9])
    rejected(lambda: load(str(path)), name, "not a readable gzip file", "EOFError")
    path.write_bytes(content.encode())
    rejected(lambda: load(str(path)), name, "not a readable gzip file", "BadGzipFile")


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.arrow.zst", "a.gz", "a.tar.gz"])
def test_other_compressed_files_are_named(name, tmp_path):
    (tmp_path / name).write_bytes(gzip.compress(b"x"))
    rejected(lambda: load(str(tmp_path / name)), "unknown file type", ".gz", ".zst", ".jsonl")
