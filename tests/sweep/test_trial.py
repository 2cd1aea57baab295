"""One trial in its own process, with a stand-in for the run; and the table of the trials' results."""

import json

import pandas as pd
import pytest

from lit_mem.sweep import results, trial
from lit_mem.sweep.spec import trials

FAKE = """
import json, pathlib, sys
words = sys.argv[1:]
loggers = json.loads(next(w for w in words if w.startswith("--trainer.logger=")).partition("=")[2])
logs = pathlib.Path(loggers[0]["init_args"]["save_dir"], loggers[0]["init_args"]["version"])
(logs / "checkpoints").mkdir(parents=True)
(logs / "checkpoints" / "last.ckpt").write_text("x")
(logs / "words.json").write_text(json.dumps(words))
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes jobs whose process runs `FAKE` followed by the given code."""

    def make(then=""):
        monkeypatch.setattr(trial, "START", ("-c", FAKE + then))
        return {
            "name": "rank=1_seed=0", "folder": str(tmp_path / "trials" / "rank=1_seed=0"), "run": ["a.yaml", "b.yaml"],
            "values": {"rank": 1}, "seed": 0, "options": {"x.rank": 1}, "words": ["--x.rank=1"], "cwd": str(tmp_path),
            "path": [],
        }  # fmt: skip

    return make


def words(job, attempt):
    from pathlib import Path

    return json.loads((Path(job["folder"]) / f"attempt_{attempt}" / "words.json").read_text())


def test_it_runs_once_with_its_own_loggers(job, tmp_path):
    first = job()
    state = trial.run(first)
    assert state["status"] == "done"
    assert state == trial.state(tmp_path / "trials" / "rank=1_seed=0")
    line = words(first, 0)
    assert line[:3] == ["fit", "--config=a.yaml", "--config=b.yaml"]
    assert line[-1] == "--x.rank=1"
    assert trial.run(first) == state
    assert len(results.attempts(tmp_path / "trials" / "rank=1_seed=0")) == 1  # not run again


def test_it_imports_from_where_the_sweep_does(job, tmp_path):
    paths = job("(logs / 'path.json').write_text(json.dumps(sys.path))")
    paths["path"] = [str(tmp_path / "mine")]
    trial.run(paths)
    found = json.loads((tmp_path / "trials" / "rank=1_seed=0" / "attempt_0" / "path.json").read_text())
    assert found[0] == str(tmp_path / "mine")
    assert not {"", str(tmp_path)} & set(found)


def test_what_crashed_is_raised_and_goes_on_from_its_checkpoint(job, tmp_path):
    crash = job("print('Epoch 3'); raise RuntimeError('out of luck')")
    with pytest.raises(trial.TrialFailed, match="RuntimeError: out of luck"):
        trial.run(crash)
    state = trial.state(tmp_path / "trials" / "rank=1_seed=0")
    assert (state["status"], state["error"]) == ("failed", "RuntimeError: out of luck")
    assert trial.run(job())["status"] == "done"
    last = tmp_path / "trials" / "rank=1_seed=0" / "attempt_0" / "checkpoints" / "last.ckpt"
    assert words(crash, 1)[-1] == f"--ckpt_path={last}"


def test_a_usage_error_is_reported_and_not_retried(job):
    state = trial.run(job("print('hint'); print('error: x.rank is 1', file=sys.stderr); sys.exit(2)"))
    assert (state["status"], state["error"]) == ("failed", "x.rank is 1")


# -- the table ---------------------------------------------------------------------------------------------

CSV = """epoch,step,train/loss,val/loss,val/perplexity,mia/reference_auroc
,0,,1.5,4.48,0.5
0,4,1.4,,,
0,9,,1.3,3.67,0.55
1,14,1.2,,,
1,19,,1.2,3.32,0.6
"""
LATER = """epoch,step,val/loss,val/perplexity,mia/reference_auroc
1,19,1.21,3.35,0.61
2,29,1.1,3.0,
"""


def test_the_table_has_a_row_per_validation_with_the_later_attempt_s_metrics(tmp_path):
    wanted = trials({"rank": {"option": "x.rank", "values": [1, 2]}}, [0], {}, ["seed"])
    folder = tmp_path / "trials" / wanted[0].name
    for attempt, text in enumerate((CSV, LATER)):
        (folder / f"attempt_{attempt}").mkdir(parents=True)
        (folder / f"attempt_{attempt}" / "metrics.csv").write_text(text)
        (folder / f"attempt_{attempt}" / "hparams.yaml").write_text("trainable_parameters: 7\nx.rank: 1\n")
    made = results.table(tmp_path, wanted)
    assert made["epoch"].tolist() == [0, 1, 2, 3]
    assert made["step"].tolist() == [0, 9, 19, 29]
    assert made["val/perplexity"].tolist() == [4.48, 3.67, 3.35, 3.0]
    assert made["mia/reference_auroc"].tolist()[:3] == [0.5, 0.55, 0.61]
    assert made["mia/reference_auroc"].isna().tolist() == [False, False, False, True]
    assert made["rank"].tolist() == [1] * 4
    assert made["trainable_parameters"].tolist() == [7] * 4
    results.write(tmp_path, made)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "results.parquet"), made)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), made)
    assert sorted(path.name for path in tmp_path.glob("*results*")) == ["results.csv", "results.parquet"]


def test_what_was_not_begun_is_pending(tmp_path):
    wanted = trials({"rank": {"option": "x.rank", "values": [1, 2]}}, [0], {}, ["seed"])
    state = results.summary(tmp_path, wanted, {"name": "rank"})
    assert [each["status"] for each in state["trials"]] == ["pending", "pending"]
    assert state["axes"] == [{"label": "rank", "values": [1, 2]}]
    assert state["seeds"] == [0]
    results.write(tmp_path, results.table(tmp_path, wanted))
    assert list(pd.read_csv(tmp_path / "results.csv").columns[:4]) == ["trial", "seed", "rank", "epoch"]
