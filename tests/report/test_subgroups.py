"""Subgroups in a report: which are exposed most, beside all texts."""

import csv
import html
import importlib.util
import json
from pathlib import Path

import jsonschema
import pytest

import lit_mem.report
from lit_mem.cli import main as cli
from lit_mem.report.history import Validation
from lit_mem.report.subgroups import subgroups_of

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
SCHEMA = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())

METRICS = {
    "slice/duplicates/0/reference_auroc": 0.61, "slice/duplicates/0/ngram_rate": 0.2,
    "slice/duplicates/0/exact_rate": 0.0,
    "slice/duplicates/2_or_more/reference_auroc": 0.97, "slice/duplicates/2_or_more/reference_auroc_low": 0.9,
    "slice/duplicates/2_or_more/reference_auroc_high": 0.99, "slice/duplicates/2_or_more/ngram_rate": 0.5,
    "slice/duplicates/2_or_more/exact_rate": 0.4, "slice/duplicates/2_or_more/exact_rate_low": 0.25,
    "slice/duplicates/2_or_more/exact_rate_high": 0.57, "slice/sex/F/ngram_rate": 0.6,
}  # fmt: skip


def report(folder, **metrics):
    made.write_run(folder, table=False)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[-1] |= metrics
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    cli.main(["report", str(folder)])
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return data["subgroups"], (folder / "report.html").read_text()


def test_subgroups_stand_in_the_order_of_exposure_beside_all_texts(tmp_path):
    found, page = report(tmp_path / "run", **METRICS, **{"extraction/exact_rate": 0.08})
    assert found["n"] == 3
    titles = ["AUROC of reference", "n-gram rate", "whole suffix"]
    assert found["columns"] == ["subgroup", *(x for title in titles for x in (title, "95 % interval"))]
    assert found["rows"] == [
        ["duplicates=2_or_more", 0.97, "0.900 to 0.990", 0.5, None, 0.4, "0.250 to 0.570"],
        ["duplicates=0", 0.61, None, 0.2, None, 0.0, None],
        ["sex=F", None, None, 0.6, None, None, None],
    ]
    for words in (
        "duplicates=2_or_more (0.970 [0.900, 0.990], 0.651 on all)",
        "sex=F (0.600, 0.230 on all)",
        "duplicates=2_or_more (0.400 [0.250, 0.570], 0.0800 on all)",
    ):
        assert words in found["text"], words
    assert found["text"] in html.unescape(page)
    assert page.index('id="subgroups"') < page.index('id="setup"')
    assert '<a href="#subgroups">' in page


def test_without_subgroups_there_is_no_section(tmp_path):
    found, page = report(tmp_path / "run")
    assert found is None
    assert 'id="subgroups"' not in page


@pytest.mark.parametrize("last", [None, Validation(1, 1, {}), Validation(1, 1, {"slice/a/b/loss_auroc": float("nan")})])
def test_what_was_not_measured_makes_no_subgroup(last):
    assert subgroups_of(last, "loss") is None


def test_ten_subgroups_are_shown_and_a_rate_of_0_is_nobodys():
    metrics = {f"slice/age/{i}/exact_rate": 0.0 for i in range(12)}
    found = subgroups_of(Validation(1, 1, metrics), None)
    assert (found["n"], len(found["rows"]), found["text"]) == (12, 10, "")
