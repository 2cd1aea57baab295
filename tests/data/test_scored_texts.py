"""Which members and held-out texts are scored, how that is reported, and texts that are in memory already."""

import json
import logging
from collections import Counter

import pytest
from datasets import Dataset, DatasetDict, IterableDatasetDict
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger

from lit_mem.callbacks import MembershipInference, Perplexity
from lit_mem.data import TextDataModule
from lit_mem.data.probe import default_size, scored_members
from lit_mem.data.sources.given import Given, as_source
from lit_mem.errors import ConfigError, DataError

TINY = "asset:tiny_llama"


def over(source, **options):
    data = TextDataModule(source, tokenizer=TINY, **({"check": False} | options))
    data.setup("fit")
    return data


def texts_of(examples):
    return [example.record.text for example in examples]


# -- members ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "heldout", "size"),
    [(95, 25, 95), (2000, 5, 2000), (2001, 5, 2000), (2898, 300, 2000), (9000, 5000, 5000), (3000, 5000, 3000)],
)
def test_how_many_members_are_scored_by_default(members, heldout, size):
    assert default_size(members, heldout) == size
    assert len(scored_members([str(n) for n in range(members)], [str(n) for n in range(members)], size, 0)) == size


@pytest.mark.parametrize("seed", range(5))
def test_repeated_texts_and_each_group_are_in_the_sample(seed):
    texts = [f"text {n % 95}" for n in range(100)]  # five occur twice
    groups = [f"group {n % 10}" for n in range(100)]
    chosen = scored_members(texts, groups, 15, seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 15
    twice = {text for text, count in Counter(texts).items() if count == 2}
    assert twice <= {texts[i] for i in chosen}
    assert {groups[i] for i in chosen} == set(groups)
    assert chosen == scored_members(texts, groups, 15, seed)
    few = scored_members(texts, groups, 3, seed)  # as far as the number reaches
    assert len(few) == 3
    assert {texts[i] for i in few} <= twice


@given(
    texts=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    groups=st.integers(1, 30),
    seed=st.integers(0, 9),
)
def test_as_many_as_there_are_different_texts_are_each_text_once(texts, groups, seed):
    names = [f"group {text % groups}" for text in texts]  # equal texts are of one group
    chosen = scored_members(texts, names, len(set(texts)), seed)
    assert sorted(texts[i] for i in chosen) == sorted(set(texts))


def test_copies_of_a_member_are_trained_on_and_not_scored(caplog):
    source = DatasetDict(
        train=Dataset.from_dict({"text": [*notes(20), *notes(3), *notes(1)]}),
        heldout=Dataset.from_dict({"text": notes(5, 50)}),
    )
    with caplog.at_level(logging.INFO, "lit_mem"):
        data = over(source)
    assert len(data.train) == 24
    assert sorted(texts_of(data.members)) == sorted(notes(20))
    copies = {example.record.text: example.record.duplicates for example in data.members}
    assert [copies[text] for text in notes(4)] == [2, 1, 1, 0]
    assert data.scored_texts()._asdict() == {"members": 20, "of_members": 24, "heldout": 5, "of_heldout": 5}
    (line,) = [line for line in caplog.messages if line.startswith("Scored")]
    assert "20 distinct texts among 24 members" in line


def test_without_repeats_and_groups_the_sample_is_that_of_the_seed_alone():
    import torch

    own = [str(n) for n in range(50)]
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3)).tolist()
    assert scored_members(own, own, 20, 3) == sorted(order[:20])


def notes(n, start=0):
    return [f"Patient {i} took lithium and had a rash." for i in range(start, start + n)]


def test_all_members_are_scored_where_there_are_few_and_a_sample_is_reported(caplog):
    source = DatasetDict(
        train=Dataset.from_dict({"text": notes(20)}), heldout=Dataset.from_dict({"text": notes(5, 50)})
    )
    with caplog.at_level(logging.INFO, "lit_mem"):
        data = over(source)
        assert texts_of(data.members) == notes(20)
        assert not [line for line in caplog.messages if line.startswith("Scored")]
        assert len(over(source, members_size=7, heldout_size=3).members) == 7
    (line,) = [line for line in caplog.messages if line.startswith("Scored")]
    assert "7 of 20 members" in line
    assert "3 of 5 held-out" in line


def test_the_counts_lie_in_the_file_of_the_checks(module, trainer, tmp_path):
    texts = notes(6, 50)
    source = DatasetDict(
        train=Dataset.from_dict({"text": notes(20)}), heldout=Dataset.from_dict({"text": [*texts, texts[0]]})
    )
    data = TextDataModule(source, members_size=8, batch_size=10)
    run = trainer([Perplexity()], logger=CSVLogger(str(tmp_path), "r", 0), max_epochs=1)
    run.fit(module(dropout=0.0), data)
    found = json.loads((tmp_path / "r" / "version_0" / "checks.json").read_text())
    assert found["scored"] == {"members": 8, "of_members": 20, "heldout": 6, "of_heldout": 7}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_counts_are_those_within_the_limits_of_batches(stage, module, trainer, tmp_path):
    source = DatasetDict(
        train=Dataset.from_dict({"text": notes(20)}),
        heldout=Dataset.from_dict({"text": notes(6, 50)}),
        test=Dataset.from_dict({"text": notes(9, 70)}),
    )
    data = TextDataModule(source, members_size=18, scoring_tokens=60)
    option = "limit_val_batches" if stage == "validate" else "limit_test_batches"
    measure = MembershipInference(plots=False)
    run = trainer([measure], logger=CSVLogger(str(tmp_path), "r", 0), **{option: 1})
    getattr(run, stage)(module(), data, verbose=False)
    found = json.loads((tmp_path / "r" / "version_0" / "checks.json").read_text())["scored"]
    members = int(measure.examples.member.sum())
    assert 0 < members < 18
    heldout = {"heldout": len(measure.examples) - members, "of_heldout": 6 if stage == "validate" else 9}
    assert found == {"members": members, "of_members": 20, **heldout}
    assert data.scored_texts()._asdict() == found


# -- held-out texts --------------------------------------------------------------------------------------------------


def test_a_held_out_text_counts_once_and_repeats_are_reported(caplog):
    held = ["A rash.", "A fever.", "A rash.", "a RASH", "A cough.", "A rash."]
    source = DatasetDict(
        train=Dataset.from_dict({"text": notes(8)}),
        heldout=Dataset.from_dict({"text": held}),
        test=Dataset.from_dict({"text": ["A chill.", "A chill."]}),
    )
    with caplog.at_level(logging.INFO, "lit_mem"):
        data = over(source)
        data.setup("test")
    assert texts_of(data.heldout) == ["A rash.", "A fever.", "a RASH", "A cough."]
    assert texts_of(data.test) == ["A chill."]
    held_out, test = [line for line in caplog.messages if "repeat an earlier one" in line]
    assert held_out.startswith("2 of 6 held-out texts")
    assert "1 more" in held_out
    assert test.startswith("1 of 2 test texts")


# -- sizes and sources -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "there"), [("train_size", 20), ("heldout_size", 5), ("members_size", 20)])
def test_a_size_that_is_too_large_names_null(option, there):
    source = DatasetDict(
        train=Dataset.from_dict({"text": notes(20)}), heldout=Dataset.from_dict({"text": notes(5, 50)})
    )
    with pytest.raises(ConfigError, match=rf"data\.{option} is 300, but .*\b{there}\b.*set it to null"):
        over(source, **{option: 300})


@pytest.mark.parametrize(
    "source",
    [
        notes(10),
        tuple(notes(10)),
        [{"text": text, "ward": "B"} for text in notes(10)],
        Dataset.from_dict({"text": notes(10)}),
        [{"prompt": text[:10], "completion": text[10:], "group": n} for n, text in enumerate(notes(10))],
        DatasetDict(train=Dataset.from_dict({"text": notes(10)})),
    ],
    ids=["texts", "tuple", "rows", "Dataset", "prompts", "DatasetDict"],
)
def test_rows_in_memory_are_a_source(source):
    data = over(source)
    rows = data.source.load().train
    assert [p + c for p, c in zip(rows["prompt"], rows["completion"], strict=True)] == notes(10)
    assert len(data.train) + len(data.heldout) == 10
    assert len(data.heldout) == 2


@pytest.mark.parametrize("source", ["notes.jsonl", [], None, 3, iter(["a"])])
def test_what_is_no_source_is_rejected_in_one_line(source):
    with pytest.raises(ConfigError, match=r"^data\.source is an? .*; expected a source such as TextFiles"):
        TextDataModule(source)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (["fine", ""], r"row 2, field 'text'"),
        (["fine", 3], "row 2, found int, expected an object"),
        ([{"note": "x"}], "no column 'text'"),
        (Dataset.from_dict({"note": ["x"]}), "no column 'text'"),
    ],
)
def test_rows_in_memory_are_checked_as_those_of_files(source, part):
    with pytest.raises(DataError, match=part):
        over(source)


@pytest.mark.parametrize("kind", ["table", "streamed", "streamed splits"])
def test_what_has_columns_but_is_no_dataset_is_rejected(kind):
    rows = Dataset.from_dict({"text": ["A rash.", "A fever."]})
    source = {
        "table": lambda: rows.data.table,
        "streamed": rows.to_iterable_dataset,
        "streamed splits": lambda: IterableDatasetDict({"train": rows.to_iterable_dataset()}),
    }[kind]()
    with pytest.raises(ConfigError, match=rf"^data\.source is an? {type(source).__name__}; expected"):
        as_source(source)
    assert isinstance(as_source(rows), Given)
    assert isinstance(as_source(DatasetDict({"train": rows})), Given)
