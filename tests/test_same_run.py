"""The comparison of two runs finds every difference there is."""

import shutil

import pytest
import torch

from benchmarks.same_run import differences


@pytest.fixture
def runs(tmp_path):
    """Two folders of one run."""
    one = tmp_path / "one"
    (one / "checkpoints").mkdir(parents=True)
    (one / "metrics.csv").write_text("epoch,step,time/train,val/loss,mia/a\n,0,,1.5,\n0,3,7.0,1.25,0.5\n")
    torch.save({"state_dict": {"w": torch.ones(2)}}, one / "checkpoints" / "last.ckpt")
    shutil.copytree(one, tmp_path / "two")
    return one, tmp_path / "two"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (",0,,1.5,\n0,3,9.0,1.25,0.5\n", []),
        (",0,,1.5,\n0,3,7.0,1.2500001,0.5\n", ["step 3: val/loss was 1.25, is 1.2500001"]),
        (",0,,1.5,0.5\n0,3,7.0,1.25,\n", ["step 0: mia/a only after", "step 3: mia/a only before"]),
        (",0,,1.5,\n", ["2 rows of metrics before, 1 after"]),
    ],
)
def test_metrics_are_compared_but_not_times(runs, text, found):
    one, two = runs
    (two / "metrics.csv").write_text("epoch,step,time/train,val/loss,mia/a\n" + text)
    assert differences(one, two) == found


def test_weights_are_compared_to_the_last_bit(runs):
    one, two = runs
    torch.save({"state_dict": {"w": torch.ones(2) * (1 + 2e-7)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["weight w differs"]
    torch.save({"state_dict": {"v": torch.ones(2)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["other weights are trained"]
