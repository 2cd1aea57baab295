"""Can I release it? One of three answers by the limits at the last validation, and its reasons."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.audit.judging import Rule, judge_all
from lit_mem.audit.thresholds import Limits
from lit_mem.cli import main as cli
from lit_mem.cli.report import make
from lit_mem.files.record import FILE, Line, append
from lit_mem.report.answer import OVER, UNKNOWN, WITHIN, answer, headline
from lit_mem.report.exposed import NOT_RECORDED, worst_for, worst_subgroup
from lit_mem.report.history import History, Validation

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


def of_run(tmp_path, limit, **options):
    return make(made.write_run(tmp_path / "run", limits=limit, table=False, **options))["answer"]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("mia/reference_auroc > 0.68", WITHIN),  # [0.641, 0.661]
        ("mia/reference_auroc > 0.60", OVER),
        ("mia/reference_auroc > 0.65", UNKNOWN),  # within the interval
        ("mia/loss_auroc > 0.9", UNKNOWN),  # NaN
        ("extraction/span_rate > 0.9", UNKNOWN),  # never logged
        ("mia/reference_auroc > 0.68, extraction/ngram_rate > 0.1", OVER),
        ("mia/reference_auroc > 0.68, extraction/span_rate > 0.1", UNKNOWN),
        ("mia/reference_auroc > 0.6, extraction/span_rate > 0.1", OVER),
    ],
)
def test_the_three_answers(limit, expected, tmp_path):
    assert of_run(tmp_path, limit)["answer"] == expected


def test_what_is_missing_is_named_with_what_it_lacks(tmp_path):
    found = of_run(tmp_path, "mia/loss_auroc > 0.9, extraction/span_rate > 0.9")
    assert found["missing"] == ["extraction/span_rate", "mia/loss_auroc"]
    assert [line.partition(":")[0] for line in found["settled_by"]] == found["missing"]
    folder = made.write_run(tmp_path / "audit", table=False)
    metrics = {"val/loss": 1.0}
    append(folder / FILE, Line("fit", 4, 40, 39, True, 9, 9, metrics, {"mia/reference_auroc": "there is no reference"}))
    found = make(folder)["answer"]
    assert (found["answer"], found["missing"]) == (UNKNOWN, ["mia/reference_auroc"])
    assert "there is no reference" in found["settled_by"][0]


def test_an_undecided_answer_says_how_many_texts_would_settle_it(tmp_path):
    folder = made.write_run(tmp_path / "run", limits="mia/reference_auroc > 0.65", table=False)
    made.write_checks(folder, scored={"members": 60, "of_members": 60, "heldout": 60, "of_heldout": 60})
    report = make(folder)
    (line,) = report["answer"]["settled_by"]
    assert line == f"mia/reference_auroc: {report['verdict']['limits'][0]['settled_by']}"


def test_without_a_limit_there_is_no_answer(tmp_path, capsys):
    folder = made.write_run(tmp_path / "run", table=False)
    config = (folder / "config.yaml").read_text().replace("MemorizationEarlyStopping", "Other")
    (folder / "config.yaml").write_text(config)
    found = make(folder)["answer"]
    assert (found["answer"], found["text"]) == (UNKNOWN, "no limit was set")
    assert "--fail-on" in found["settled_by"][0]
    assert make(folder, fail_on=["mia/reference_auroc > 0.68"])["answer"]["answer"] == WITHIN
    assert make(folder, fail_on=["mia/reference_auroc > 0.60"])["answer"]["answer"] == OVER
    cli.main(["report", str(folder)])
    assert capsys.readouterr().out.splitlines()[0] == "Can I release it? Undecided: no limit was set."


def test_a_condition_of_the_report_counts_beside_the_run_s_own_limits(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    assert make(folder)["answer"]["answer"] == WITHIN
    assert make(folder, fail_on=["val/perplexity > 2"])["answer"]["answer"] == OVER
    assert make(folder, fail_on=["mia/reference_auroc > 0.65"])["answer"]["answer"] == UNKNOWN


@pytest.mark.parametrize("epochs", [0])
def test_a_run_that_was_measured_only_before_training_has_no_answer(epochs, tmp_path):
    found = of_run(tmp_path, "mia/reference_auroc > 0.68", epochs=epochs)
    assert found["answer"] == UNKNOWN
    assert found["missing"] == ["mia/reference_auroc"]


def test_a_checkpoint_within_the_limits_is_named_where_the_last_weights_are_over(tmp_path):
    folder = made.write_run(tmp_path / "run", limits="mia/reference_auroc > 0.68", epochs=2, table=False)
    made.write_adapter(folder, "best", 1)
    found = make(folder)["answer"]
    assert found["answer"] == OVER
    assert "checkpoint best, from epoch 1" in found["instead"]


ends = st.floats(0, 1)


@settings(max_examples=200, deadline=None)
@given(ends, ends, ends, st.floats(0, 1), st.sampled_from(["any", "all"]), st.booleans())
def test_within_is_never_said_of_what_is_not_judged_so(low, high, value, limit, counted, measured):
    low, value, high = sorted([low, value, high])
    metrics = {"mia/a_auroc": value, "mia/a_auroc_low": low, "mia/a_auroc_high": high} if measured else {}
    rules = [Rule("stop", Limits([f"mia/a_auroc > {limit}", "val/loss > 3"]), counted)]
    metrics["val/loss"] = 1.0
    history = History([Validation(1, 9, metrics)])
    found = answer(rules, history, None)
    state = judge_all(rules, metrics)[0]
    assert found["answer"] == {"within": WITHIN, "over": OVER}.get(state, UNKNOWN)
    assert (found["answer"] == UNKNOWN) == bool(found["settled_by"])
    assert headline(found).startswith("Can I release it? ")


def test_no_claim_of_safety_is_made(tmp_path):
    found = of_run(tmp_path, "mia/reference_auroc > 0.68")
    line = headline(found)
    assert "by the attacks that were tried" in line
    for word in ("safe", "compliant", "anonymous", "GDPR", "yes"):
        assert word not in line.lower()


# -- for whom it is worst ------------------------------------------------------------------------------------


def test_it_is_worst_for_persons_without_their_names(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    made.write_persons(folder)
    found = make(folder)
    text = " ".join(found["answer"]["worst"])
    assert "3 of 14 persons" in text
    assert not [row[0] for row in found["persons"]["rows"] if row[0] in text]


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1))
def test_the_worst_subgroup_is_the_one_with_the_highest_auroc(areas):
    metrics = {f"slice/kind/{name}/loss_auroc": value for name, value in areas.items()}
    noise = {"slice/kind/a/other_auroc": 2.0, "slice/kind/a/loss_auroc_low": 3.0, "mia/loss_auroc": 4.0}
    name, value, n = worst_subgroup(metrics | noise, "loss")
    assert value == max(areas.values())
    assert areas[name.split("/")[2]] == value
    assert n == len(areas)


def test_repeated_texts_are_compared_with_all():
    metrics = {"memorization/exposed_duplicates": 0.5, "memorization/members_duplicates": 0.1}
    (line,) = worst_for(Validation(1, 1, metrics), None, None)
    assert "50 %" in line
    assert "10 %" in line


def test_what_was_not_recorded_is_said():
    assert worst_for(Validation(1, 1, {}), None, "loss") == worst_for(None, None, None) == [NOT_RECORDED]


def test_what_is_not_covered(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    counts = {"members": 40, "of_members": 60, "heldout": 60, "of_heldout": 60}
    made.write_checks(folder, scored=counts, warnings=["a", "b"])
    text = " ".join(make(folder)["answer"]["not_covered"])
    for piece in ("model inversion", "attribute inference", "reconstruction", "20 of 60 training texts", "2 warnings"):
        assert piece in text
    (folder / "checks.json").unlink()
    assert "not recorded" in " ".join(make(folder)["answer"]["not_covered"])


def test_the_answer_is_the_first_line_of_page_and_annex(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    cli.main(["report", str(folder)])
    line = headline(json.loads((folder / "report.json").read_text())["answer"])
    assert (folder / "annex.md").read_text().startswith("# Can I release it? Within its limits")
    html = (folder / "report.html").read_text()
    assert f"<title>{line}" in html.replace("&gt;", ">")
    assert html.partition("<main>")[2].partition("<h1>")[2].startswith("Can I release it?")
