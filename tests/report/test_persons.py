"""Persons in a report: the sentence, the most exposed, and no name that the run did not write."""

import csv
import html
import importlib.util
import json
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lit_mem.report
from lit_mem.audit.person import PersonRow, PersonTable
from lit_mem.audit.person_file import person_table
from lit_mem.cli import main as cli
from lit_mem.errors import DataError
from lit_mem.report.run_report import run_report

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
SCHEMA = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())

METRICS = {
    "user/inference_auroc": 0.8125, "user/inference_auroc_low": 0.7, "user/inference_auroc_high": 0.9,
    "user/extracted_share": 0.25, "user/extracted_share_low": 0.2, "user/extracted_share_high": 0.31,
    "user/extracted_share_heldout": 0.05,
}  # fmt: skip


def people(n=12, others=4, tried=True):
    """Most exposed first, as a run sorts them: every fourth member with pieces."""
    members = [
        PersonRow(f"{i:016x}", True, 3 + i, 2, 0.91 - i / 100, 0.5, max(0, 3 - i) if tried else None) for i in range(n)
    ]
    return [*members, *(PersonRow(f"f{i:015x}", False, 2, 2, 9.0, 9.0, 7) for i in range(others))]


def write(folder, rows, name="epoch_0003_step_000030", column="mia/reference"):
    path = folder / "persons" / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(person_table(PersonTable(column, rows), 3, 30), path)
    return path


@pytest.fixture
def run(tmp_path):
    """A run of three epochs whose last validation measured persons."""
    folder = made.write_run(tmp_path / "run", table=False)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[-1] |= METRICS
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def report(folder):
    cli.main(["report", str(folder)])
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return data["persons"], (folder / "report.html").read_text()


def test_the_sentence_and_the_ten_most_exposed_stand_under_the_verdict(run):
    write(run, people())
    write(run, people(3), "epoch_0002_step_000020")
    write(run, people(3), "start")
    found, page = report(run)
    assert (found["file"], found["epoch"]) == ("epoch_0003_step_000030.parquet", 3)
    assert (found["n_members"], found["n_heldout"], found["by"]) == (12, 4, "mia/reference")
    for words in ("3 of 12 persons", "25 % [20 %, 31 %]", "of held-out persons 5 %", "0.812 [0.700, 0.900]"):
        assert words in found["text"], words
    assert found["columns"] == ["person", "rows", "rows scored", "highest score", "pieces extracted"]
    assert found["rows"][0] == ["0" * 16, 3, 2, 0.91, 3]
    assert [row[0] for row in found["rows"]] == [f"{i:016x}" for i in range(10)]
    verdict, persons, setup = (page.index(f'id="{part}"') for part in ("verdict", "persons", "setup"))
    assert verdict < persons < setup
    assert found["text"] in html.unescape(page)
    assert f"<code>{0:016x}</code>" in page
    assert f"{10:016x}" not in page
    assert '<a href="#persons">' in page


def test_without_persons_there_is_no_section(run):
    found, page = report(run)
    assert found is None
    assert 'id="persons"' not in page
    assert '"#persons"' not in page


def test_what_was_not_measured_is_said(run):
    write(run, people(tried=False), column=None)
    (run / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.0\n")
    found, _ = report(run)
    assert "extraction: not measured" in found["text"]
    assert "separates persons: not measured" in found["text"]
    assert found["columns"] == ["person", "rows", "rows scored", "pieces extracted"]
    assert found["rows"][0][-1] is None


def test_only_some_were_tried(run):
    rows = [row._replace(extracted=None) if i % 2 else row for i, row in enumerate(people())]
    write(run, rows)
    assert report(run)[0]["text"].startswith("2 of 6 persons in the training set of whom any was tried (12 have rows")


def test_names_that_a_run_shows_are_escaped(run):
    write(run, [row._replace(person=f"<b>{row.person}</b>\u202e\x1b") for row in people()])
    _, page = report(run)
    assert "<b>0" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_a_file_of_another_kind_is_rejected(run):
    path = write(run, people())
    pq.write_table(pa.table({"person": ["a"]}), path)
    with pytest.raises(DataError, match=r"there is no column set"):
        run_report(run)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a parquet file"):
        run_report(run)
