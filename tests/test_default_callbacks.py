"""A command without callbacks measures memorization; one whose callbacks measure nothing says so before it trains."""

import logging
import sys

import pytest
import yaml

from lit_mem import callbacks as ours
from lit_mem.audit.measure import Measure
from lit_mem.cli import MemorizationCLI, main
from lit_mem.default_callbacks import BAREBONES, DEFAULT_CALLBACKS, UNMEASURED

TINY = ["--model.model_id", "asset:tiny_llama", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]


@pytest.fixture
def built(monkeypatch, tmp_path, capsys):
    """Builds what a command line names without running it: (the command line's object, its standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def build(*words):
        made = []
        monkeypatch.setattr(MemorizationCLI, "_run_from", lambda self, checkpoint, subcommand: made.append(self))
        main([*words, *TINY])
        logging.getLogger("lit_mem").handlers.clear()  # it holds the last standard error
        return made[0], capsys.readouterr().err

    return build


def classes(cli):
    kinds = [getattr(ours, name) for name in ours.__all__ if name != "Baseline"]
    return [type(c).__name__ for c in cli.trainer.callbacks if type(c) in kinds]


@pytest.mark.parametrize(
    ("subcommand", "words"), [("fit", []), ("validate", ["--trainer.callbacks", "null"]), ("test", [])]
)
def test_without_callbacks_there_are_the_default_ones(subcommand, words, built):
    cli, err = built(subcommand, *words)
    assert classes(cli) == list(DEFAULT_CALLBACKS)
    assert UNMEASURED not in err
    logged = {name for c in cli.trainer.callbacks if isinstance(c, Measure) for name in c.names()}
    assert {"mia/reference_auroc", "memorization/perplexity_gap", "extraction/exact_rate"} <= logged


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_without_checkpointing_no_callback_keeps_checkpoints(subcommand, built):
    cli, _ = built(subcommand, "--trainer.enable_checkpointing", "false")
    assert classes(cli) == [name for name in DEFAULT_CALLBACKS if name != "MemorizationCheckpoint"]


def test_a_trainer_that_logs_nothing_gets_no_callbacks(built):
    cli, err = built("fit", "--trainer.barebones", "true", "--trainer.num_sanity_val_steps", "0")
    assert classes(cli) == []
    assert err.splitlines().count(BAREBONES) == 1


def test_a_run_goes_by_its_saved_configuration(built, tmp_path):
    cli, _ = built("fit")
    text = cli._parser("fit").dump(cli.config["fit"], skip_none=False)
    saved = yaml.safe_load(text)["trainer"]["callbacks"]
    assert [entry["class_path"] for entry in saved] == [f"lit_mem.callbacks.{name}" for name in DEFAULT_CALLBACKS]
    assert saved[1]["init_args"]["combined"] is True
    (tmp_path / "config.yaml").write_text(text)
    again, _ = built("fit", "--config", "config.yaml")
    assert classes(again) == list(DEFAULT_CALLBACKS)


def test_added_callbacks_are_all_that_there_is(built):
    cli, err = built("fit", "--trainer.callbacks+=lit_mem.callbacks.Perplexity")
    assert classes(cli) == ["Perplexity"]
    assert UNMEASURED not in err
    cli, err = built("fit", "--trainer.callbacks+=Perplexity", "--trainer.callbacks+=MembershipInference")
    assert classes(cli) == ["Perplexity", "MembershipInference"]


@pytest.mark.parametrize(
    ("subcommand", "words"),
    [("fit", ["--trainer.callbacks", "[]"]), ("validate", ["--trainer.callbacks+=EpochTable"])],
)
def test_a_run_that_measures_nothing_says_so_once(subcommand, words, built):
    cli, err = built(subcommand, *words)
    assert not any(isinstance(callback, Measure) for callback in cli.trainer.callbacks)
    assert err.splitlines().count(UNMEASURED) == 1
    assert "configs/quickstart.yaml" in UNMEASURED
