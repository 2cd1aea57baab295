"""The real command on Ray: trials are plain runs, failures are reported, and a second call runs the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mem.cli import main as cli
from lit_mem.sweep.results import validations

ROOT = Path(__file__).parents[2]
SMALL = {
    "trainer.max_epochs": 1,
    "trainer.log_every_n_steps": 1,
    "data.train_size": 24,
    "data.heldout_size": 20,
    "data.check": False,
}
AXES = {"rank": {"option": "model.adapter.init_args.rank", "values": [2, 999]}}


def sweep(out, *words):
    line = [sys.executable, "train.py", "sweep", "--config=configs/sweeps/rank.yaml", f"--out={out}", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_sweep_of_which_one_trial_cannot_work(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    words = [f"--set={json.dumps(SMALL)}", f"--axes={json.dumps(AXES)}", "--seeds=[5]"]
    done = sweep(tmp_path / "out", *words)
    assert done.returncode == 1, done.stderr
    assert "rank=999_seed=5: failed: model.adapter.rank is 999" in done.stdout
    assert "1 of 2 trials failed" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    summary = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [each["status"] for each in summary["trials"]] == ["done", "failed"]
    assert json.loads((tmp_path / "out" / "findings.json").read_text())["guidance"]["metric"] == "mia/reference_auroc"
    # Bit-identical to the metrics of the same run by hand.
    options = SMALL | {"model.adapter.init_args.rank": 2, "seed_everything": 5, "data.seed": 5}
    by_hand = ["fit", f"--config={ROOT / 'configs/sweeps/runs/bundled.yaml'}"]
    by_hand += [f"--{name}={json.dumps(value)}" for name, value in options.items()]
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": ""}}
    cli.main([*by_hand, f"--trainer.logger={json.dumps(logger)}"])
    expected = validations(tmp_path / "version_0")
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert len(table) == len(expected) == 2
    for row, plain in zip(table.to_dict("records"), expected, strict=True):
        assert plain.keys() <= row.keys()
        assert {name: row[name] for name in plain if "time/" not in name} == {
            name: value for name, value in plain.items() if "time/" not in name
        }
    run = tmp_path / "out" / summary["trials"][0]["folder"]
    events = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
    assert "mia/reference_auroc" in events.Tags()["scalars"]
    assert "_hparams_/session_start_info" in events.summary_metadata  # the HParams page has its columns

    # Finished trials are not run again, failed ones are.
    again = sweep(tmp_path / "out", *words)
    assert "2 trials, of which 1 are done" in again.stdout
    assert [path.name for path in run.parent.glob("attempt_*")] == ["attempt_0"]
    other = sweep(tmp_path / "out", f"--set={json.dumps(SMALL | {'data.train_size': 12})}", *words[1:])
    assert other.returncode == 2
    assert "data.train_size was 24, and is 12 now; expected the same, or another out" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--run=[no.yaml]"], "error: run: there is no file no.yaml"),
        (["--limit=mia/reference_auroc"], "error: threshold 'mia/reference_auroc' is not of the form"),
        (["--seeds=[]"], "error: seeds is []; expected different numbers, at least one"),
        (["--parallel=0"], "error: parallel is 0; expected at least 1"),
        (["--retries=-1"], "error: retries is -1; expected at least 0"),
        (["--sede=[1]"], "error: unrecognized arguments: --sede=[1]"),
    ],
)
def test_mistakes_are_one_line(words, complaint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", "--config=configs/sweeps/rank.yaml", f"--out={tmp_path}", *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(complaint)
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_dry_run_lists_the_trials_and_writes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    cli.main(["sweep", "--config=configs/sweeps/matrices.yaml", f"--out={tmp_path / 'out'}", "--dry_run=true"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 * 2 * 3
    assert lines[0].startswith('matrices=q_size=equal-rank_seed=0: --model.adapter.init_args.targets=["q"]')
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "ray.tune", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit):
        cli.main(["sweep", "--config=configs/sweeps/rank.yaml", f"--out={tmp_path / 'out'}"])
    assert capsys.readouterr().err == "error: a sweep needs the extra: pip install 'lit_mem[sweep]'\n"
