"""The same figures on one process and on two that talk over gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def run(folder, *arguments):
    """Figures that `train.py` prints, by name, without timings."""
    config = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    [slices] = [c for c in config["trainer"]["callbacks"] if c["class_path"].endswith("Slices")]
    slices["init_args"]["min_size"] = 3  # of few texts, subgroups are small
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *arguments,
        "--config",
        str(folder / "config.yaml"),
    ]
    # 41 and 33 examples do not divide evenly: a batch comes twice, and must count once.
    command += ["--data.train_size", "41", "--data.heldout_size", "33", "--data.scoring_tokens", "400"]
    command += ["--data.check", "false", "--trainer.logger", "false"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    pairs = [line.split() for line in done.stdout.splitlines() if "/" in line and len(line.split()) == 2]
    return {name: float(value) for name, value in pairs if not name.startswith("time/")}


@pytest.mark.ddp
@pytest.mark.slow
def test_figures_are_the_same_on_two_processes(tmp_path):
    fit = ["fit", "--trainer.max_epochs", "1", "--trainer.num_sanity_val_steps", "0", "--trainer.fast_dev_run", "false"]
    run(tmp_path, *fit)
    audit = ["validate", "--model.adapter_path", str(tmp_path / "checkpoints" / "last-adapter")]
    one = run(tmp_path, *audit)
    two = run(tmp_path, *audit, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert one["mia/reference_auroc"] != 0.5
    assert one["extraction/ngram_rate"] > 0
    assert two == pytest.approx(one, abs=1e-4)
    sliced = {name for name in one if name.startswith("slice/")}
    assert {"slice/sex/F/reference_auroc", "slice/sex/M/reference_auroc"} <= sliced
    assert any(name.startswith("slice/age/") for name in sliced)
    assert two["mia/reference_auroc"] == one["mia/reference_auroc"]
