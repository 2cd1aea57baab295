"""Two processes started by the command line, like a user would."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_mem.files.record import FILE, read

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_train_with_the_base_in_parts_and_speak_with_one_voice(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(ROOT / "tests" / "quickstart_plain.yaml")]
    command += ["--trainer.devices", "2", "--trainer.strategy", "sharded", "--trainer.max_epochs", "1"]
    command += ["--data.train_size", "41", "--data.heldout_size", "33", "--data.scoring_tokens", "400"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in ("epoch", "start", "1")] == ["epoch", "start", "1"]
    assert done.stderr.count("members to train on") == 1
    assert "Traceback" not in done.stderr
    [metrics] = tmp_path.rglob("metrics.csv")
    assert "mia/reference_auroc" in metrics.read_text()
    [record] = tmp_path.rglob(FILE)
    lines, _ = read(record)
    assert [(line.epoch, line.complete) for line in lines] == [(0, True), (1, True)]  # written by rank zero only
    assert lines[1].heldout == 33
    [last] = tmp_path.rglob("last-adapter")
    assert (last / "adapter_model.safetensors").is_file()
