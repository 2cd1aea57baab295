import datasets
import pytest
from datasets import exceptions

from lit_mem.data.sources.hub import HubDataset
from lit_mem.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "reports"
    folder.mkdir()
    lines = [f'{{"text": "report {n}", "patient": {n // 2}}}' for n in range(10)]
    (folder / "train.jsonl").write_text("\n".join(lines[:8]))
    (folder / "test.jsonl").write_text("\n".join(lines[8:]))
    return folder


def test_a_local_folder_with_slices(folder):
    source = HubDataset(
        str(folder),
        train_split="train[:6]",
        heldout_split="train[6:]",
        test_split="test",
        group_column="patient",
    )
    corpus = source.load()
    assert list(corpus.train["completion"]) == [f"report {n}" for n in range(6)]
    assert list(corpus.heldout["completion"]) == ["report 6", "report 7"]
    assert list(corpus.heldout["origin"]) == ["reports/train[6:]:1", "reports/train[6:]:2"]
    assert list(corpus.test["group"]) == ["4", "4"]
    assert corpus.train.column_names == ["prompt", "completion", "group", "origin", "patient"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"train_split": "validation"}, ["no split 'validation'", "train", "test"]),
        ({"text_column": "note"}, ["split 'train'", "no column 'note'", "'text', 'patient'"]),
        ({"text_column": "patient"}, ["row 1", "'patient'", "found int"]),
        ({"name": "french"}, ["no configuration 'french'"]),
    ],
)
def test_bad_options_are_named(folder, options, parts):
    with pytest.raises(DataError) as caught:
        HubDataset(str(folder), **options).load()
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in [str(folder), *parts] if part not in message] == []


def test_files_that_are_not_a_table_do_not_show_their_text(folder):
    (folder / "train.jsonl").write_text('{"text": "secret"}\n{oops')
    with pytest.raises(DataError, match="cannot be read as one table") as caught:
        HubDataset(str(folder)).load()
    assert "secret" not in str(caught.value)


def test_columns_of_mixed_types_are_not_texts(folder):
    (folder / "train.jsonl").write_text('{"text": "fine"}\n{"text": ["list"]}\n{"text": 3}\n')
    (folder / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"2 of 3 rows.*row 2, field 'text': found list"):
        HubDataset(str(folder)).load()


def test_a_folder_without_data(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match="no readable data files"):
        HubDataset(str(tmp_path / "void")).load()


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            exceptions.DatasetNotFoundError("Dataset 'x/y' doesn't exist"),
            "nor a dataset on the hub",
        ),
        (ConnectionError("Couldn't\nreach the hub"), "hub is unreachable"),
        (RuntimeError("Dataset scripts are no longer supported, but found y.py"), "loading script"),
        (ValueError("Config name is missing."), "several configurations"),
        (ValueError("something else"), "cannot be loaded"),
    ],
)
def test_errors_of_the_hub_are_one_line(monkeypatch, error, part):
    def fail(*args, **kwargs):
        assert "trust_remote_code" not in kwargs
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=part) as caught:
        HubDataset("x/y").load()
    assert "\n" not in str(caught.value)
    assert "x/y" in str(caught.value)


def test_offline_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"x/y: (the hub is unreachable|no such folder)"):
        HubDataset("x/y").load()


def test_members_cannot_be_held_out():
    with pytest.raises(ConfigError, match="heldout_split is the same"):
        HubDataset("x/y", heldout_split="train")
