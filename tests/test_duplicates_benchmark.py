"""The benchmark's corpus with duplicates, and what deduplication leaves."""

import json
import sys

import pytest

from benchmarks import duplicates


@pytest.mark.slow
@pytest.mark.exhaustive
def test_each_way_leaves_the_rows_that_it_should(tmp_path, monkeypatch, capsys):
    options = ["x", "--rows", "20", "--copies", "3", "--epochs", "1", "--repeats", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", options)
    duplicates.main()
    (made,) = json.loads((tmp_path / "duplicates.json").read_text())
    rows = {row[0]: dict(zip(made["columns"], row, strict=True)) for row in made["rows"]}
    # Two texts three times, two in three versions, sixteen once.
    assert {way: row["rows"] for way, row in rows.items()} == {"none": 28, "exact": 24, "near": 20}
    for row in rows.values():
        assert all(0 <= row[f"AUROC {group}"] <= 1 for group in duplicates.GROUPS)
        assert row["ppl held-out"] > 1
    assert "data.deduplicate" in capsys.readouterr().out


def test_groups_are_those_of_the_rows(tmp_path):
    texts = [f"text {i} of a case that ends here" for i in range(20)]
    groups = duplicates.write(texts, 3, tmp_path / "train.jsonl")
    rows = [json.loads(line)["text"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert rows[:20] == texts
    assert len(rows) == len(groups) == 28
    for text in texts[:2]:
        assert rows.count(text) == 3
    for text in texts[2:4]:
        assert [row for row in rows if row.startswith(text.removesuffix("here"))] == [
            text,
            text.replace("here", "b."),
            text.replace("here", "c."),
        ]
    assert groups.count("once") == 16
    assert [groups[i] for i in (0, 2, 4, 20, 22)] == [
        "repeated", "nearly repeated", "once", "repeated", "nearly repeated",
    ]  # fmt: skip
