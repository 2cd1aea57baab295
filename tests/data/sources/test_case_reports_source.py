import json

import pytest

from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.errors import DataError


def write(folder, **changes):
    row = {
        "id": "1_1",
        "group": "p1",
        "text": "A made-up case.",
        "spans": [{"type": "age", "start": 2, "end": 6}],
        "sex": "female",
        "age": 41,
    }
    for split in ("train", "heldout", "test"):
        changed = {**row, **changes} if split == "heldout" else row
        kept = {name: value for name, value in changed.items() if value is not ...}
        (folder / f"{split}.jsonl").write_text(json.dumps(kept) + "\n")


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
