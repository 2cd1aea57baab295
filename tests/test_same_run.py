"""The comparison of two runs finds every difference there is."""

import json
import shutil

import pytest
import torch

from benchmarks.same_run import differences

START = {"stage": "fit", "step": 0, "metrics": {"val/loss": 1.5, "time/scoring": 2.0}}
LATER = {"stage": "fit", "step": 4, "metrics": {"val/loss": 1.25, "mia/a": 0.5, "time/scoring": 2.0}}


def write(folder, *lines):
    (folder / "memorization.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def runs(tmp_path):
    """Two folders of one run."""
    one = tmp_path / "one"
    (one / "checkpoints").mkdir(parents=True)
    write(one, START, LATER)
    (one / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,1,2.5,\n0,3,,1.25\n")
    torch.save({"state_dict": {"w": torch.ones(2)}}, one / "checkpoints" / "last.ckpt")
    shutil.copytree(one, tmp_path / "two")
    return one, tmp_path / "two"


def changed(**metrics):
    return LATER | {"metrics": LATER["metrics"] | metrics}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([START, changed(**{"time/scoring": 3.0})], []),
        ([START, changed(**{"val/loss": 1.25 + 2**-52})], ["step 4: val/loss was 1.25, is 1.2500000000000002"]),
        ([START, changed(**{"mia/b": 0.5})], ["step 4: mia/b only after"]),
        ([START, LATER | {"stage": "test"}], ["step 4: stage was fit, is test"]),
        ([START, START | {"step": 4}], ["step 4: mia/a only before", "step 4: val/loss was 1.25, is 1.5"]),
        ([START], ["2 validations before, 1 after"]),
    ],
)
def test_metrics_of_the_record_are_compared_but_not_times(runs, lines, found):
    one, two = runs
    write(two, *lines)
    assert differences(one, two) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0,1,2.5,,\n0,3,,1.5,0.5\n", []),  # what loggers get of a validation may differ
        ("0,1,2.4,,\n0,3,,1.25,\n", ["step 1: train/loss was 2.5, is 2.4"]),
        ("0,3,,1.25,\n", ["1 rows of training before, 0 after"]),
    ],
)
def test_losses_of_training_are_compared(runs, text, found):
    one, two = runs
    (two / "metrics.csv").write_text("epoch,step,train/loss,val/loss,mia/a\n" + text)
    assert differences(one, two) == found


def test_a_run_without_a_record_is_not_compared(runs):
    one, two = runs
    (two / "memorization.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"two/memorization\.jsonl does not exist"):
        differences(one, two)


def test_weights_are_compared_to_the_last_bit(runs):
    one, two = runs
    torch.save({"state_dict": {"w": torch.ones(2) * (1 + 2e-7)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["weight w differs"]
    torch.save({"state_dict": {"v": torch.ones(2)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["different weights are trained"]
