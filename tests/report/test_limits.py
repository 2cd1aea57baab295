"""Who set a limit: the option of the configuration, or of the record of a run that has no configuration."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from lit_mem.cli.report import make
from lit_mem.errors import DataError
from lit_mem.files.record import FILE, Line, Stop, append
from lit_mem.report.files import callbacks_of
from lit_mem.report.limits import rules_of
from lit_mem.report.page import page

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

LIMIT = "mia/reference_auroc > 0.68"
SECTION = {"memorization": {"suite": "standard", "stop": [LIMIT], "stop_when": "all", "lower_bound": True}}
LINE = Line("fit", 1, 10, 9, True, 60, 60, {"mia/reference_auroc": 0.6})


def listed(kind, **options):
    return {"trainer": {"callbacks": [{"class_path": f"lit_mem.callbacks.{kind}", "init_args": options}]}}


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (SECTION, [("memorization.stop", [LIMIT], True, "all")]),
        ({"memorization": {"stop": LIMIT}}, [("memorization.stop", [LIMIT], False, "any")]),
        ({"memorization": {"suite": "none", "stop": LIMIT}}, []),
        ({"memorization": {"suite": "full", "stop": []}}, []),
        (
            listed("MemorizationEarlyStopping", thresholds=[LIMIT], stop_when="all"),
            [("MemorizationEarlyStopping.thresholds", [LIMIT], False, "all")],
        ),
        (
            listed("MemorizationCheckpoint", thresholds=[LIMIT]) | SECTION,
            [("MemorizationCheckpoint.thresholds", [LIMIT], False, "any"), ("memorization.stop", [LIMIT], True, "all")],
        ),
        (listed("MemorizationCheckpoint", thresholds=None), []),
        ({}, []),
    ],
)
def test_each_limit_has_the_option_that_set_it(config, found):
    rules = [(r.set_by, [str(t) for t in r.limits], r.limits.lower_bound, r.counted) for r in rules_of(config)]
    assert rules == found


def test_the_section_is_no_callback_of_the_user_s():
    assert list(callbacks_of(SECTION)) == []


@pytest.mark.parametrize("option", ["memorization.stop", "MemorizationEarlyStopping"])  # the latter in older records
def test_a_run_without_configuration_has_the_limits_of_its_record(option, tmp_path):
    earlier = Stop("another", ["mia/reference_auroc > 0.9"], "any", False)
    append(tmp_path / FILE, replace(LINE, stop=[earlier]))
    append(tmp_path / FILE, replace(LINE, epoch=2, step=20, stop=[Stop(option, ["val/loss > 3", LIMIT], "all", True)]))
    report = make(tmp_path)
    limits = [(row["set_by"], row["limit"], row["counted"]) for row in report["verdict"]["limits"]]
    assert limits == [(option, "val/loss > 3", "all"), (option, LIMIT, "all")]
    assert f'<td data-label="Set by">{option}, all at once</td>' in page(report)


def test_the_configuration_comes_first(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    append(folder / FILE, replace(LINE, stop=[Stop("another", ["val/loss > 3"], "any", False)]))
    (limit,) = make(folder)["verdict"]["limits"]
    assert (limit["set_by"], limit["limit"]) == ("MemorizationEarlyStopping.thresholds", LIMIT)


def test_a_record_with_what_is_no_threshold_names_its_file(tmp_path):
    append(tmp_path / FILE, replace(LINE, stop=[Stop("memorization.stop", ["nonsense"], "any", False)]))
    with pytest.raises(DataError, match=r"memorization\.jsonl: stop: .*nonsense"):
        make(tmp_path)
