"""The comparison of two runs finds every difference there is."""

import shutil

import pytest
import torch

from benchmarks.same_run import differences
from lit_mem.files.record import FILE, Line, append

BASELINE = {"val/loss": 1.5}
TRAINED = {"val/loss": 1.25, "mia/a": 0.5, "time/train": 7.0}


def write(folder, *passes, losses="0.75"):
    """A record of these metrics, a validation each, and a training loss."""
    (folder / FILE).unlink(missing_ok=True)
    for epoch, metrics in enumerate(passes):
        append(folder / FILE, Line("fit", epoch, 4 * epoch, 4 * epoch, True, 8, 8, metrics))
    (folder / "metrics.csv").write_text(f"epoch,step,train/loss,val/loss\n0,0,,1.5\n0,2,{losses},\n0,4,,1.25\n")


@pytest.fixture
def runs(tmp_path):
    """Two folders of one run."""
    one = tmp_path / "one"
    (one / "checkpoints").mkdir(parents=True)
    write(one, BASELINE, TRAINED)
    torch.save({"state_dict": {"w": torch.ones(2)}}, one / "checkpoints" / "last.ckpt")
    shutil.copytree(one, tmp_path / "two")
    return one, tmp_path / "two"


@pytest.mark.parametrize(
    ("passes", "found"),
    [
        ((BASELINE, TRAINED | {"time/train": 9.0}), []),
        ((BASELINE, TRAINED | {"val/loss": 1.2500001}), ["step 4: val/loss was 1.25, is 1.2500001"]),
        ((BASELINE | {"mia/a": 0.5}, {"val/loss": 1.25}), ["step 0: mia/a only after", "step 4: mia/a only before"]),
        ((BASELINE, TRAINED, TRAINED), ["3 rows of metrics before, 4 after"]),
    ],
)
def test_metrics_are_compared_but_not_times(runs, passes, found):
    one, two = runs
    write(two, *passes)
    assert differences(one, two)[: len(found)] == found
    assert bool(differences(one, two)) == bool(found)


def test_training_losses_are_compared(runs):
    one, two = runs
    write(two, BASELINE, TRAINED, losses="0.7500001")
    assert differences(one, two) == ["step 2: train/loss was 0.75, is 0.7500001"]


def test_weights_are_compared_to_the_last_bit(runs):
    one, two = runs
    torch.save({"state_dict": {"w": torch.ones(2) * (1 + 2e-7)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["weight w differs"]
    torch.save({"state_dict": {"v": torch.ones(2)}}, two / "checkpoints" / "last.ckpt")
    assert differences(one, two) == ["other weights are trained"]
