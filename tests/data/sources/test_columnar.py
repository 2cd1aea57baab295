"""Parquet and Arrow files written by pyarrow, pandas and datasets."""

import datetime
import logging
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.data import TextDataModule
from lit_mem.data.sources import TextFiles
from lit_mem.errors import DataError

FAST = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = ["Ann took lithium.", "Bob took aspirin.", "Ann took lithium again.", "Cid took nothing."]
KINDS = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of large_string": pa.array(TEXTS, pa.large_string()).dictionary_encode(),
    "runs": pa.compute.run_end_encode(pa.array(TEXTS)),
}
GROUPS = ["a", "b", "a", "c"]
FURTHER = {
    "nothing": pa.nulls(4),
    "nested": pa.array([{"a": [1], "b": {"c": "x"}}] * 4),
    "lists": pa.array([["x"], [], None, ["y"]], pa.large_list(pa.large_string())),
    "sort": pa.array(["u", None, "u", "v"]).dictionary_encode(),
    "day": pa.array([datetime.date(2020, 1, 1)] * 4),
}


def write(path, table, form):
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_stream if form == "stream" else pa.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)


def load(path, **options):
    return TextFiles(str(path), **options).load().train


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["parquet", "stream", "file"])
def test_texts_of_any_type_of_text_are_read(kind, form, tmp_path):
    if kind == "runs" and form == "parquet":
        pytest.skip("parquet has no such type")
    path = tmp_path / f"a.{'parquet' if form == 'parquet' else 'arrow'}"
    who = pa.array(GROUPS).dictionary_encode()
    write(path, pa.table({"text": KINDS[kind], "who": who, **FURTHER}), form)
    rows = load(path, group_column="who")
    assert rows["completion"][:] == TEXTS
    assert rows["group"][:] == GROUPS
    assert rows["sort"][:] == ["u", None, "u", "v"]
    assert rows["nested"][0] == {"a": [1], "b": {"c": "x"}}
    assert rows["lists"][:] == [["x"], [], None, ["y"]]
    data = TextDataModule(TextFiles(str(path)), tokenizer="asset:tiny_llama", heldout_fraction=0.5, check=False)
    data.setup("fit")
    attributes = [one.record.attributes for one in [*data.train, *data.heldout]]
    assert sorted(one.get("sort", "") for one in attributes) == ["", "u", "u", "v"]


@FAST
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
            st.integers(-(2**53), 2**53) | st.none(),
            st.sampled_from(["x", "y"]) | st.none(),
        ),
        min_size=1,
        max_size=5,
    )
)
@pytest.mark.parametrize("form", ["parquet", "feather", "datasets"])
def test_what_pandas_and_datasets_write_is_read_back(tmp_path, rows, form):
    texts, numbers, sorts = (list(values) for values in zip(*rows, strict=True))
    frame = pd.DataFrame({"text": texts, "n": pd.array(numbers, "Int64"), "sort": pd.Categorical(sorts, ["x", "y"])})
    path = tmp_path / ("a.parquet" if form == "parquet" else "a.arrow")
    if form == "parquet":
        frame.set_axis(range(3, 3 + len(rows))).to_parquet(path)
    elif form == "feather":
        frame.to_feather(path)
    else:
        features = {"text": "string", "n": "int64", "sort": "string"}
        made = datasets.Dataset.from_dict(
            {"text": texts, "n": numbers, "sort": sorts},
            datasets.Features({name: datasets.Value(kind) for name, kind in features.items()}),
        )
        with pa.ipc.new_stream(str(path), made.data.schema) as writer:
            writer.write_table(made.data.table)
    read = load(path)
    assert (read["completion"][:], read["n"][:], read["sort"][:]) == (texts, numbers, sorts)


def test_what_datasets_notes_of_its_columns_is_kept(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "sex": datasets.ClassLabel(names=["f", "m"])})
    datasets.Dataset.from_dict({"text": TEXTS, "sex": [0, 1, 0, 1]}, features).to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").features["sex"].names == ["f", "m"]


@pytest.mark.parametrize("name", [None, "patient"])
def test_an_index_of_pandas_is_left_out_unless_it_has_a_name(name, tmp_path, caplog):
    frame = pd.DataFrame({"text": TEXTS}, index=pd.Index(["p", "q", "p", "r"], name=name))
    frame.to_parquet(tmp_path / "a.parquet")
    with caplog.at_level(logging.INFO, "lit_mem"):
        rows = load(tmp_path / "a.parquet", group_column=name)
    said = [line for line in caplog.messages if "pandas index" in line]
    assert len(said) == (name is None)
    assert [column for column in rows.column_names if "index" in column] == []
    assert rows["group"][:] == (["p", "q", "p", "r"] if name else rows["origin"][:])


@pytest.mark.parametrize("form", ["stream", "file"])
def test_a_damaged_arrow_file_is_one_line(form, tmp_path):
    path = tmp_path / "a.arrow"
    write(path, pa.table({"text": TEXTS}), form)
    whole = path.read_bytes()
    for content in (b"", whole[:8], whole[: len(whole) // 2], b"x" * 100, whole.replace(b"lithium", b"\xff" * 7)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.arrow: is not an arrow file that can be read") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    write(path, pa.table({"text": pa.array([], pa.string())}), form)
    with pytest.raises(DataError, match="is empty"):
        load(path)


def test_the_cache_of_datasets_is_such_a_file(tmp_path):
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    (path,) = Path(tmp_path / "saved").glob("*.arrow")
    assert load(path)["completion"][:] == TEXTS


def test_rows_of_a_formatted_dataset_are_texts():
    rows = datasets.Dataset.from_dict({"text": TEXTS}).with_format("torch")
    data = TextDataModule(rows, tokenizer="asset:tiny_llama", heldout_fraction=0.5, check=False)
    data.setup("fit")
    assert sorted(one.record.text for one in [*data.train, *data.heldout]) == sorted(TEXTS)
