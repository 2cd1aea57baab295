"""The measure of CONTRIBUTING.md is one file, one line of YAML and one test, and works."""

import csv
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(python|yaml)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the measure, its configuration and its test, from which Python imports."""
    for language, text in BLOCKS:
        name = "measure.yaml" if language == "yaml" else re.match(r"# (\S+\.py)\n", text)[1]
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("greedy_share", None)
    sys.modules.pop("test_greedy_share", None)


def test_its_test_passes(folder, audited):
    written = importlib.import_module("test_greedy_share")
    written.test_the_share_of_greedy_hits_by_hand(audited)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_logs_it(folder):
    assert list(yaml.safe_load((folder / "measure.yaml").read_text())) == ["memorization"]
    words = (
        f"{ROOT}/train.py fit --config measure.yaml --memorization.suite quick --model.model_id asset:tiny_llama "
        "--memorization.stop extraction/greedy_share>0 --data.source CaseReports --data.train_size 12 "
        "--data.heldout_size 12 --data.check false --trainer.max_epochs 2 --trainer.accelerator cpu"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, *words.split()], capture_output=True, text=True, timeout=900, env=environment
    )
    assert done.returncode == 0, done.stderr
    with open("logs/lit_mem/version_0/metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert len(rows) == 2  # before training, and after the epoch that the threshold ended
    assert all(0 < float(row["extraction/greedy_share_heldout"]) < 1 for row in rows)
