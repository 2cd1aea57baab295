import json
from collections import Counter

import pytest

from lit_mem.data.options import DataOptions
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.split import split
from lit_mem.errors import ConfigError, DataError


def write(folder, **changes):
    row = {
        "id": "1_1",
        "group": "p1",
        "text": "A made-up case.",
        "spans": [{"type": "age", "start": 2, "end": 6}],
        "sex": "female",
        "age": 41,
    }
    for name_of_set in ("train", "heldout", "test"):
        changed = {**row, **changes} if name_of_set == "heldout" else row
        kept = {name: value for name, value in changed.items() if value is not ...}
        (folder / f"{name_of_set}.jsonl").write_text(json.dumps(kept) + "\n")


def test_reads_the_form(tmp_path):
    write(tmp_path)
    corpus = CaseReports(str(tmp_path)).load()
    assert corpus.train[0] == {
        "prompt": "",
        "completion": "A made-up case.",
        "group": "p1",
        "origin": "train.jsonl:1",
        "id": "1_1",
        "spans": [{"type": "age", "start": 2, "end": 6}],
        "sex": "female",
        "age": 41,
    }
    assert list(corpus.test["origin"]) == ["test.jsonl:1"]


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"text": ""}, "'text'"), ({"group": None}, "'group'"), ({"spans": ...}, "no column 'spans'")],
)
def test_bad_rows_are_named(tmp_path, changes, part):
    write(tmp_path, **changes)
    with pytest.raises(DataError, match=part) as caught:
        CaseReports(str(tmp_path)).load()
    assert "heldout.jsonl" in str(caught.value)


def test_the_bundled_corpus():
    corpus = CaseReports().load()
    sides = [set(rows["group"]) for rows in (corpus.train, corpus.heldout, corpus.test)]
    assert all(sides)
    assert len(set.union(*sides)) == sum(map(len, sides))
    for rows in (corpus.train, corpus.heldout, corpus.test):
        assert all(0 <= span["start"] < span["end"] <= len(row["completion"]) for row in rows for span in row["spans"])


# -- reports that are repeated in the training set ---------------------------------------------------------------


def test_reports_are_repeated_as_configured_and_nothing_else_changes():
    times = {1: 20, 2: 5, 7: 3}
    plain, made = CaseReports().load(), CaseReports(repeated=times).load()
    assert Counter(Counter(made.train["completion"]).values()) == times
    assert (made.heldout[:], made.test[:]) == (plain.heldout[:], plain.test[:])
    by_origin = {row["origin"]: row for row in plain.train}
    for row in made.train:
        origin, _, copy = row["origin"].partition(" copy ")
        assert row == by_origin[origin] | {"origin": row["origin"]}
        assert copy == "" or 2 <= int(copy) <= 7
    assert len(set(made.train["origin"])) == len(made.train) == 51
    lines = [int(origin.split(":")[1].split()[0]) for origin in made.train["origin"]]
    assert lines == sorted(lines)


def test_the_seed_draws_which_and_members_and_held_out_rows_share_nothing():
    drawn = [CaseReports(repeated={1: 30, 4: 10}, seed=seed).load() for seed in (0, 0, 1)]
    assert drawn[0].train[:] == drawn[1].train[:] != drawn[2].train[:]
    train, heldout, of_heldout = split(drawn[0], DataOptions())
    assert (len(train), of_heldout) == (70, len(drawn[0].heldout))
    for column in ("completion", "group"):
        assert not set(train[column]) & set(heldout[column])


@pytest.mark.parametrize(
    ("repeated", "message"),
    [
        ({}, "repeated is empty"),
        ({0: 5}, "a number of times is 0; expected at least 1"),
        ({3: 0}, "reports repeated 3 times is 0; expected at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_rejected(repeated, message):
    with pytest.raises(ConfigError, match=message):
        CaseReports(repeated=repeated)


def test_more_reports_than_there_are_are_rejected(tmp_path):
    write(tmp_path)
    with pytest.raises(ConfigError, match=r"repeated needs 3 distinct reports; expected at most 1$"):
        CaseReports(str(tmp_path), repeated={1: 2, 5: 1}).load()
