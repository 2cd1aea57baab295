"""What a report says of private training: the ledger is compared with configuration, metrics and checkpoint."""

import importlib.util
from pathlib import Path

import pytest
import torch
import yaml

from lit_mem.cli.report import make
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.carried import ONLY_LATER
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.summed import export
from lit_mem.report.files import read_config
from lit_mem.report.history import read_history
from lit_mem.report.private_training import private_training

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

SPENT = epsilon([Steps(1.1, 0.1, 30)], 1e-3, "rdp")
OPTIONS = {"noise_multiplier": 1.1, "batch_size": 10, "accountant": "rdp"}


def ledger_with(path, noise=1.1, steps=30, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = Ledger(path)
    made.start(100, noise, 0.1, **more)
    for _ in range(steps):
        made.charge()
    return made


@pytest.fixture
def run(tmp_path):
    """The folder of a private run: 30 steps of 10 of 100 texts on average."""
    folder = tmp_path / "run"
    ledger = ledger_with(folder / "privacy.jsonl")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"privacy": OPTIONS}}))
    (folder / "metrics.csv").write_text(
        "epoch,step,val/loss,privacy/delta,privacy/noise_multiplier,privacy/epsilon\n"
        f"0,0,,0.001,1.1,\n0,30,1.0,,,{SPENT}\n"
    )
    (folder / "checkpoints").mkdir()
    spent = {
        "history": [[1.1, 0.1, 30]], "noise_multiplier": 1.1, "texts": 100, "ledger": str(ledger.path),
        "ledger_id": ledger.id, "ledger_chain": ledger.chain,
    }  # fmt: skip
    content = {"format": 1, "base": "b", "fingerprint": {}, "random_state": {}, "privacy": spent}
    torch.save(
        {"state_dict": {}, "pytorch-lightning_version": "2", "lit_mem": content}, folder / "checkpoints" / "last.ckpt"
    )
    return folder


def found_in(folder):
    return private_training(folder, read_config(folder / "config.yaml")[1], read_history(folder / "metrics.csv"))


def test_a_ledger_that_fits_is_warned_of_by_nothing(run):
    found = found_in(run)
    assert (found["steps"], found["warnings"]) == (30, [])
    assert found["metrics"]["privacy/epsilon"] == pytest.approx(SPENT)
    assert f"is bounded by ε = {SPENT:.4g}" in found["text"]
    assert "Budgets add up" in found["text"]


def test_epsilon_of_a_person_stands_beside_that_of_a_row(run):
    assert "largest group" not in found_in(run)["text"]
    path = run / "metrics.csv"
    path.write_text(
        "epoch,step,val/loss,privacy/epsilon,privacy/delta,privacy/largest_group,privacy/epsilon_largest_group\n"
        f"0,0,,,0.001,,\n0,30,1.0,{SPENT},,5,12.5\n"
    )
    found = found_in(run)
    assert f"is bounded by ε = {SPENT:.4g}" in found["text"]
    assert "Of a person with 5 rows, the largest group, the bound is ε = 12.50 at the same δ." in found["text"]
    assert found["metrics"]["privacy/epsilon_largest_group"] == 12.5
    path.write_text(path.read_text().replace(",5,12.5", ",80,"))
    assert "Of a person with 80 rows, the largest group, no bound was computed." in found_in(run)["text"]


def test_a_ledger_may_have_more_steps_than_were_logged(run):
    ledger = Ledger(run / "privacy.jsonl")
    ledger.start(100, 3.0, 0.2)  # of a run that was resumed with other options
    ledger.charge()
    assert (found_in(run)["steps"], found_in(run)["warnings"]) == (31, [])


def test_a_changed_line_is_named(run):
    path = run / "privacy.jsonl"
    path.write_text(path.read_text().replace("1.1", "110.0"))
    found = found_in(run)
    assert found["steps"] is None
    assert "is bounded by" not in found["text"]
    (warning,) = found["warnings"]
    assert "privacy.jsonl, line 1: found another hash" in warning


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"noise": 110.0},
            ["noise_multiplier of config.yaml is 1.1", "noise_multiplier of metrics.csv is 1.1", "epsilon"],
        ),
        ({"steps": 3}, [f"privacy/epsilon of metrics.csv is {SPENT:.4g}"]),
    ],
)
def test_a_rewritten_ledger_disagrees_with_the_run(changes, named, run):
    """With all hashes right. The checkpoint shows it first; without one, configuration and metrics do."""
    ledger_with(run / "privacy.jsonl", **changes)
    (warning,) = found_in(run)["warnings"]
    assert "is not the one of this checkpoint" in warning
    (run / "checkpoints" / "last.ckpt").unlink()
    warnings = found_in(run)["warnings"]
    assert len(warnings) == len(named)
    for warning, part in zip(warnings, named, strict=True):
        assert part in warning


def test_other_sizes_of_steps_than_the_configurations_are_named(run):
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"privacy": OPTIONS | {"batch_size": 20}}}))
    (warning,) = found_in(run)["warnings"]
    assert "has steps of 10 texts, and model.privacy.batch_size of config.yaml is 20" in warning


def test_the_ledger_of_a_resumed_run_lies_where_its_checkpoint_says(run, tmp_path):
    (run / "privacy.jsonl").rename(tmp_path / "privacy.jsonl")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["lit_mem"]["privacy"]["ledger"] = str(tmp_path / "privacy.jsonl")
    torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
    assert (found_in(run)["steps"], found_in(run)["warnings"]) == (30, [])


def test_what_epsilon_leaves_out_is_said(run):
    (run / "checkpoints" / "last.ckpt").unlink()
    ledger_with(run / "privacy.jsonl", unaccounted=True)
    assert found_in(run)["warnings"] == [ONLY_LATER]


def test_a_validation_of_a_private_adapter_shows_its_epsilon(run, tmp_path):
    folder = tmp_path / "audit"
    folder.mkdir()
    (tmp_path / "adapter").mkdir()
    export(Ledger(run / "privacy.jsonl"), tmp_path / "adapter" / "privacy.jsonl")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"adapter_path": str(tmp_path / "adapter")}}))
    (folder / "metrics.csv").write_text("epoch,step,val/loss\n0,0,1.0\n")
    found = found_in(folder)
    assert f"ε = {epsilon([Steps(1.1, 0.1, 30)], 1e-3):.4g}" in found["text"]
    assert (found["steps"], found["warnings"]) == (30, [])
    (tmp_path / "adapter" / "privacy.jsonl").unlink()
    assert found_in(folder) is None


def test_private_trials_of_a_sweep_add_up(tmp_path):
    folder = made.write_sweep(tmp_path / "matrices")
    assert "add up" not in make(folder)["verdict"]["text"]
    ledger_with(folder / "trials" / "a" / "attempt_0" / "privacy.jsonl")
    assert f"add up: lit-mem privacy {folder}." in make(folder)["verdict"]["text"]


def test_the_highest_bound_of_an_audit_is_of_so_many_validations(run):
    highest = "audit/epsilon_lower_bound_highest"
    (run / "metrics.csv").write_text(
        f"epoch,step,val/loss,audit/epsilon_lower_bound,{highest}\n0,0,2.0,0.0,\n0,10,1.5,0.7,0.5\n1,20,1.2,0.4,0.5\n"
    )
    found = found_in(run)
    assert found["audited"] == 2
    assert (found["metrics"]["audit/epsilon_lower_bound"], found["metrics"][highest]) == (0.4, 0.5)
