"""A report of a run by its record: the numbers of its metrics.csv, by their values before rounding."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from lit_mem.cli import main as cli
from lit_mem.cli.report import make
from lit_mem.files.origin import write_origin
from lit_mem.files.record import FILE, Line, append
from lit_mem.report.chain import chain_of, chained_history, read_run
from lit_mem.report.history import history_of, is_run, read_history
from lit_mem.sweep.results import validations

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


def line(epoch, metrics, stage="fit", step=None, logged=None):
    step = 10 * epoch if step is None else step
    logged = max(0, step - 1) if logged is None else logged
    return Line(stage, epoch, step, logged, True, 60, 60, metrics)


def recorded(folder, keep=False):
    """Has a record in place of `metrics.csv`, or beside it, with the same numbers."""
    for one in read_history(folder / "metrics.csv").validations:
        append(folder / FILE, line(one.epoch, one.metrics))
    if not keep:
        (folder / "metrics.csv").unlink()
    return folder


@pytest.mark.parametrize("keep", [False, True], ids=["alone", "beside metrics.csv"])
def test_the_report_is_the_same(keep, tmp_path):
    reports = []
    for name in ("csv", "record"):
        folder = made.write_run(tmp_path / name / "same" / "run")
        made.write_adapter(folder, "best", 1)
        recorded(folder, keep) if name == "record" else folder
        reports.append(make(folder))
    assert repr(reports[0]) == repr(reports[1])  # NaN is not equal to itself


def test_a_resumed_run_is_joined_by_records(tmp_path):
    found = []
    for name in ("csv", "record"):
        folders = [
            made.write_run(tmp_path / name / "version_0", epochs=2, table=False),
            made.write_run(tmp_path / name / "version_1", first=3, table=False),
        ]
        write_origin(folders[0], "fit", None, 0)
        write_origin(folders[1], "fit", folders[0] / "checkpoints" / "last.ckpt", 20)
        for folder in folders if name == "record" else ():
            recorded(folder)
        found.append(chained_history(chain_of(folders[1])).validations)
    assert [one.epoch for one in found[0]] == [0, 1, 2, 3]
    assert repr(found[0]) == repr(found[1])


def test_thresholds_judge_values_that_are_not_rounded(tmp_path, capsys):
    folder, condition = tmp_path / "run", ["--fail-on", "extraction/exact_rate > 0.6"]
    folder.mkdir()
    rounded = float(np.float32(0.6))
    assert rounded > 0.6  # so the row of metrics.csv is beyond the limit, and the value is not
    (folder / "metrics.csv").write_text(f"epoch,step,extraction/exact_rate\n0,9,{rounded}\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), *condition])
    assert stop.value.code == 3
    append(folder / FILE, line(1, {"extraction/exact_rate": 0.6}))
    cli.main(["report", str(folder), *condition])
    assert json.loads((folder / "report.json").read_text())["gate"]["failed"] == []


def test_losses_and_spent_privacy_are_those_that_were_logged_last(tmp_path):
    text = "epoch,step,train/loss,val/loss,privacy/epsilon\n0,4,1.5,,\n0,9,,1.25,2.0\n0,12,,,2.5\n"
    (tmp_path / "metrics.csv").write_text(text)
    append(tmp_path / FILE, line(1, {"train/loss": 1.625, "val/loss": 1.1, "privacy/epsilon": 2.0, "lr": 0.5}))
    history = history_of(tmp_path)
    assert history.has_losses
    assert history.names == {"train/loss", "val/loss", "privacy/epsilon", "lr"}
    (one,) = history.validations
    assert one.metrics == {"train/loss": 1.5, "val/loss": 1.1, "privacy/epsilon": 2.5, "lr": 0.5}


def test_a_validation_that_only_metrics_csv_has_keeps_its_place(tmp_path):
    """The run was killed between the two, or an earlier version has written the first rows."""
    rows = "".join(f"{e - 1 if e else ''},{max(0, 10 * e - 1)},{e}.5\n" for e in range(5))
    (tmp_path / "metrics.csv").write_text(f"epoch,step,val/loss\n{rows}")
    for epoch in (1, 3):
        append(tmp_path / FILE, line(epoch, {"val/loss": epoch + 0.25}))
    found = history_of(tmp_path).validations
    assert [(one.epoch, one.get("val/loss")) for one in found] == [(0, 0.5), (1, 1.25), (2, 2.5), (3, 3.25), (4, 4.5)]


def test_a_validation_that_only_the_record_has_keeps_its_place(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,9,1.5\n2,29,3.5\n")
    for epoch in range(4):
        append(tmp_path / FILE, line(epoch, {"val/loss": epoch + 0.5}))
    assert [one.epoch for one in history_of(tmp_path).validations] == [0, 1, 2, 3]


@pytest.mark.parametrize("logged_step", [9, 10])
def test_a_pass_is_one_validation_whether_or_not_its_step_was_counted_when_it_was_logged(tmp_path, logged_step):
    (tmp_path / "metrics.csv").write_text(f"epoch,step,train/loss,val/loss\n0,{logged_step},1.5,1.25\n")
    append(tmp_path / FILE, line(1, {"val/loss": 1.125}, logged=logged_step))
    (one,) = history_of(tmp_path).validations
    assert (one.epoch, one.step, one.metrics) == (1, 9, {"train/loss": 1.5, "val/loss": 1.125})


@pytest.mark.parametrize("stage", ["validate", "test"])
@pytest.mark.parametrize("csv", [False, True])
def test_without_an_origin_the_record_says_what_an_audit_is(csv, stage, tmp_path):
    append(tmp_path / FILE, line(0, {"val/loss": 1.5}, stage, step=0))
    if csv:
        (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,0,1.5\n")
    history, origin = read_run(tmp_path, {})
    assert (history.audit, origin.command) == (True, stage)
    assert [one.epoch for one in history.validations] == [0]
    assert make(tmp_path)["audit"]["command"] == stage


def test_a_fit_of_one_epoch_is_no_audit_though_it_logs_no_loss(tmp_path):
    append(tmp_path / FILE, line(1, {"val/loss": 1.5}))
    history, _ = read_run(tmp_path, {})
    assert not history.audit
    assert [one.epoch for one in history.validations] == [1]


def test_a_torn_line_is_noted_and_left_out(tmp_path):
    folder = recorded(made.write_run(tmp_path / "run", epochs=1, table=False))
    with (folder / FILE).open("a") as file:
        file.write('{"version": 1, "stage": "fi')
    report = make(folder)
    assert [one["epoch"] for one in report["validations"]] == [0, 1]
    assert any(note.startswith(f"{FILE}: line 3 is truncated") for note in report["notes"])


def test_a_sweep_reads_it(tmp_path):
    folder = made.write_run(tmp_path / "run", epochs=1, table=False)
    expected = validations(folder)
    assert [row["epoch"] for row in expected] == [0, 1]
    assert repr(validations(recorded(folder))) == repr(expected)
    assert validations(tmp_path / "nothing") == []


def test_a_folder_is_that_of_a_run_with_either_file(tmp_path):
    assert not is_run(tmp_path)
    append(tmp_path / FILE, line(0, {}))
    assert is_run(tmp_path)


@pytest.mark.parametrize("logged", [1, 0], ids=["hugging_face", "lightning"])
def test_an_evaluation_after_training_takes_no_epoch_s_place(logged, tmp_path):
    for epoch in range(4):
        step = 5 * epoch
        made = line(epoch, {"mia/loss_auroc": 0.5 + epoch / 10}, step=step, logged=max(0, step - 1 + logged))
        append(tmp_path / FILE, made)
    append(tmp_path / FILE, line(3, {"mia/loss_auroc": 0.6}, stage="validate", step=15, logged=15))
    found = history_of(tmp_path)
    assert [(v.epoch, v.step) for v in found.validations] == [(0, 0), (1, 4), (2, 9), (3, 14)]
    assert found.last.metrics["mia/loss_auroc"] == pytest.approx(0.8)
    assert found.notes == [
        "1 pass of validate or test after training began is not on this page; memorization.jsonl has it"
    ]
