"""The report of a run that was resumed: it has the record of the runs before it."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from lit_mem.cli import main as cli
from lit_mem.files.origin import write_origin
from lit_mem.report.chain import chain_of, chained_history, read_origin
from lit_mem.report.history import read_history

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


def report(folder):
    cli.main(["report", str(folder)])
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def resumed(tmp_path):
    """A run of two epochs, and one resumed from its last checkpoint, at step 20."""
    first = made.write_run(tmp_path / "version_0", limits="mia/reference_auroc > 0.8", epochs=2, table=False)
    second = made.write_run(tmp_path / "version_1", limits="mia/reference_auroc > 0.8", first=3, table=False)
    write_origin(first, "fit", None, 0)
    write_origin(second, "fit", first / "checkpoints" / "last.ckpt", 20)
    return first, second


def epochs(data):
    return [row["epoch"] for row in data["validations"]]


def test_it_has_all_epochs_and_its_baseline(resumed):
    data = report(resumed[1])
    assert epochs(data) == [0, 1, 2, 3]
    assert data["verdict"]["state"] == "within"
    assert "each of the 3 validations:" in data["verdict"]["text"]
    assert [row["value"] for row in data["trust"]["before_training"] if row["metric"] == "mia/reference_auroc"] == [0.5]
    assert any("version_0, version_1" in note for note in data["notes"])


def test_over_in_the_first_part_is_over_before(resumed):
    for folder in resumed:
        text = (folder / "config.yaml").read_text()
        (folder / "config.yaml").write_text(text.replace("> 0.8", "> 0.68"))
    assert report(resumed[1])["verdict"]["state"] == "crossed before"  # 0.6919 at least, after epoch 2


def test_where_the_first_part_is_missing_a_note_names_the_first_epoch(resumed):
    shutil.rmtree(resumed[0])
    data = report(resumed[1])
    assert epochs(data) == [3]
    assert data["audit"] is None
    assert "every" not in data["verdict"]["text"]
    assert any("starts at epoch 3" in note for note in data["notes"])
    again = made.write_run(resumed[1].parent / "version_2", limits="mia/reference_auroc > 0.8", first=2, table=False)
    write_origin(again, "fit", resumed[0] / "checkpoints" / "last.ckpt", 10)
    assert "each of the 2 validations from epoch 2 on" in report(again)["verdict"]["text"]


def test_what_came_after_the_checkpoint_does_not_count(resumed):
    """Resumed from the checkpoint of epoch 1, a run continues there: epoch 2 of the first run is not its own."""
    first, second = resumed
    again = made.write_run(second.parent / "version_2", first=3, table=False)
    write_origin(again, "fit", first / "checkpoints" / "best.ckpt", 10)
    assert epochs(report(again)) == [0, 1, 3]


def test_at_the_same_step_the_later_run_counts(resumed):
    first, second = resumed
    again = made.write_run(second.parent / "version_2", first=2, table=False)
    text = (again / "metrics.csv").read_text()
    (again / "metrics.csv").write_text(text.replace(str(made.PERPLEXITY[2]), "7.5"))
    write_origin(again, "fit", first / "checkpoints" / "last.ckpt", 20)
    data = report(again)
    assert epochs(data) == [0, 1, 2, 3]
    assert data["validations"][2]["metrics"]["val/perplexity"] == 7.5


def test_a_tree_that_was_moved_is_followed_too(resumed, tmp_path):
    (tmp_path / "there").mkdir()
    for folder in resumed:
        shutil.move(folder, tmp_path / "there" / folder.name)
    assert epochs(report(tmp_path / "there" / "version_1")) == [0, 1, 2, 3]


def test_a_run_without_the_file_is_followed_by_its_configuration(resumed):
    first, second = resumed
    for folder in resumed:
        (folder / "run.json").unlink()
    (first / "checkpoints").mkdir()
    text = (second / "config.yaml").read_text()
    (second / "config.yaml").write_text(f"{text}\nckpt_path: {first / 'checkpoints' / 'last.ckpt'}\n")
    assert epochs(report(second)) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_cycle_ends(resumed):
    first, second = resumed
    write_origin(first, "fit", second / "checkpoints" / "last.ckpt", 30)
    chain = chain_of(second)
    assert [folder.resolve() for folder, _ in chain.folders] == [second, first]
    assert not chain.whole
    assert epochs(report(second)) == [0, 1, 2, 3]


def test_at_most_fifty_links_are_followed(tmp_path):
    before = None
    for i in range(60):
        folder = tmp_path / f"version_{i}"
        folder.mkdir()
        (folder / "metrics.csv").write_text(f"epoch,step,val/loss\n{i},{10 * i + 9},1.0\n")
        write_origin(folder, "fit", before and before / "checkpoints" / "last.ckpt", 10 * i)
        before = folder
    chain = chain_of(before)
    assert len(chain.folders) == 51
    assert not chain.whole
    assert [v.epoch for v in chained_history(chain).validations] == list(range(10, 61))


def test_the_best_checkpoint_may_lie_in_the_run_before(resumed):
    first, second = resumed
    made.write_adapter(first, "best", 1)
    made.write_adapter(second, "last", 3)
    rows = {row["name"]: row for row in report(second)["checkpoints"]}
    assert rows["best"]["folder"] == os.path.join("..", "version_0", "checkpoints", "best-adapter")
    assert rows["best"]["metrics"]["val/perplexity"] == made.PERPLEXITY[1]
    write_origin(second, "fit", first / "checkpoints" / "safe.ckpt", 5)  # before that checkpoint was written
    assert "best" not in {row["name"] for row in report(second)["checkpoints"]}


@pytest.mark.parametrize("content", ["{", "[]", '{"from": {}}', '{"from": {"checkpoint": 1}}', '{"from": "x"}'])
def test_a_damaged_file_is_one_line(resumed, capsys, content):
    (resumed[1] / "run.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(resumed[1])])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "run.json" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_resume_on_the_command_line_is_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(
            {
                "trainer": {
                    "accelerator": "cpu",
                    "log_every_n_steps": 1,
                    "callbacks": [
                        {"class_path": "lit_mem.callbacks.Perplexity"},
                        {"class_path": "lit_mem.callbacks.MemorizationCheckpoint"},
                    ],
                },
                "model": {"model_id": "asset:tiny_llama", "lr_schedule": "constant"},
                "data": {"train_size": 16, "heldout_size": 16, "batch_size": 8, "check": False},
            }
        )
    )
    logs = tmp_path / "logs" / "lit_mem"
    cli.main(["fit", "--config", "run.yaml", "--trainer.max_epochs", "2"])
    cli.main(["fit", "--config", "run.yaml", "--trainer.max_epochs", "3", "--ckpt_path", "last"])
    origin = read_origin(logs / "version_1", {})
    assert (origin.command, origin.step) == ("fit", 4)
    assert origin.checkpoint[0].resolve() == logs / "version_0" / "checkpoints" / "last.ckpt"
    data = report(logs / "version_1")
    assert epochs(data) == [0, 1, 2, 3]
    whole = read_history(logs / "version_0" / "metrics.csv").validations
    assert [row["metrics"]["val/loss"] for row in data["validations"][:3]] == [v.metrics["val/loss"] for v in whole]
