"""Unusable rows: a one-line error, or one warning and the other rows."""

import json
import logging

import datasets
import pytest

from lit_mem import errors
from lit_mem.data.sources import HubDataset, TextFiles
from lit_mem.data.sources.given import TwoSets

ROWS = [{"text": "a"}, {"text": None}, {"text": "b", "who": 1}, {"txt": "c"}, {"text": " "}, {"text": "d", "who": 2}]


@pytest.fixture
def warned(caplog):
    def run(make):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "lit_mem"):
            made = make()
        return made, [line for line in caplog.messages if "cannot be used" in line]

    return run


def write(path, rows, more=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + more)
    return str(path)


def test_rows_are_left_out_counted_and_named(tmp_path, warned):
    path = write(tmp_path / "a.jsonl", ROWS, "{secret\n[1]\n")
    with pytest.raises(errors.DataError, match=r"5 of 8 rows cannot be used \(data.source.skip_unusable: true"):
        TextFiles(path).load()
    corpus, (warning,) = warned(TextFiles(path, skip_unusable=True).load)
    rows = corpus.train
    assert (rows["completion"][:], rows["origin"][:]) == (["a", "b", "d"], ["a.jsonl:1", "a.jsonl:3", "a.jsonl:6"])
    assert rows["who"][:] == [None, 1, 2]
    assert "5 of 8 rows cannot be used and are skipped: line 2, field 'text': found null" in warning
    assert [f"line {n}," in warning for n in (2, 4, 5, 7, 8)] == [True] * 5
    assert "more" not in warning
    assert "secret" not in warning


def test_groups_and_templates_count_too(tmp_path, warned):
    rows = [{"q": "?", "a": str(n), "who": n // 2 if n != 3 else None} for n in range(6)] + [{"q": "?", "a": ""}] * 4
    path = write(tmp_path / "a.jsonl", rows)
    source = TextFiles(path, None, None, "text", "{q}", "{a}", "who", skip_unusable=True)
    corpus, (warning,) = warned(source.load)
    assert corpus.train["completion"][:] == ["0", "1", "2", "4", "5"]
    assert corpus.train["group"][:] == ["0", "0", "1", "2", "2"]
    assert "5 of 10 rows" in warning


def test_nothing_is_said_of_rows_that_can_be_used_and_none_left_is_an_error(tmp_path, warned):
    path = write(tmp_path / "a.jsonl", [{"text": "a"}, {"text": "b"}])
    corpus, said = warned(TextFiles(path, skip_unusable=True).load)
    assert (corpus.train.num_rows, said) == (2, [])
    path = write(tmp_path / "a.jsonl", [{"text": ""}, {"text": None}])
    with pytest.raises(errors.DataError, match="2 of 2 rows cannot be used: line 1"):
        TextFiles(path, skip_unusable=True).load()


def test_the_hub_source_has_the_option(tmp_path, monkeypatch, warned):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    write(tmp_path / "hub" / "train.jsonl", [{"text": "a"}, {"text": None}, {"text": "b"}])
    corpus, (warning,) = warned(HubDataset(str(tmp_path / "hub"), skip_unusable=True).load)
    assert corpus.train["completion"][:] == ["a", "b"]
    assert "1 of 3 rows cannot be used and are skipped: row 2" in warning


@pytest.mark.parametrize("fields", [{}, {"text_column": "text"}])
def test_an_audit_has_these_options_among_its_fields(fields, tmp_path, warned):
    members = write(tmp_path / "m.jsonl", ROWS)
    (tmp_path / "h.csv").write_bytes("text;n\nnaïve;1\n".encode("cp1252"))
    heldout = str(tmp_path / "h.csv")
    with pytest.raises(errors.DataError, match=r"fields\.skip_unusable: true skips them"):
        TwoSets(members, [{"text": "x"}], fields).load()
    with pytest.raises(errors.DataError, match=r"fields\.encoding for another encoding"):
        TwoSets(["x"], heldout, fields).load()
    options = {**fields, "skip_unusable": True, "encoding": "cp1252", "delimiter": ";"}
    corpus, said = warned(TwoSets(members, heldout, options).load)
    assert (corpus.train["completion"][:], corpus.heldout["completion"][:]) == (["a", "b", "d"], ["naïve"])
    assert len(said) == 1
    pairs = [{"prompt": "a", "completion": "b"}, {"prompt": "c"}]
    corpus, said = warned(TwoSets(write(tmp_path / "p.jsonl", pairs), [pairs[0]], {"skip_unusable": True}).load)
    assert corpus.train["prompt"][:] == ["a"]  # the usual columns still
    with pytest.raises(errors.ConfigError, match=r"fields has no option 'skip'; expected one of .*skip_unusable"):
        TwoSets(members, heldout, {"skip": True})
