"""The section `memorization` of the command line, by default and beside listed measures."""

import logging
import sys

import pytest
import yaml

from lit_mem import callbacks as ours
from lit_mem.cli.main import main
from lit_mem.cli.trainer_cli import MemorizationCLI
from lit_mem.lightning.auditing import measures
from lit_mem.lightning.section import BAREBONES, UNMEASURED

TINY = ["--model.model_id", "asset:tiny_llama", "--trainer.accelerator", "cpu", "--trainer.logger", "false"]


@pytest.fixture
def built(monkeypatch, tmp_path, capsys):
    """Builds the command line's objects without running it: (the CLI object, its standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def build(*words):
        made = []
        monkeypatch.setattr(MemorizationCLI, "_run_from", lambda self, checkpoint, subcommand: made.append(self))
        main([*words, *TINY])
        logging.getLogger("lit_mem").handlers.clear()  # it holds the previous standard error
        return made[0], capsys.readouterr().err

    return build


def classes(cli):
    kinds = [getattr(ours, name) for name in ours.__all__ if name != "Baseline"]
    return [type(c).__name__ for c in cli.trainer.callbacks if type(c) in kinds]


def measured(cli):
    return {name for measure in measures(cli.trainer) for name in measure.names()}


BROUGHT = ["Stopwatch", "EpochTable", "PerplexityDropWarning", "MemorizationCheckpoint"]


@pytest.mark.parametrize(
    ("subcommand", "words"), [("fit", []), ("validate", ["--trainer.callbacks", "[]"]), ("test", [])]
)
def test_without_any_option_the_standard_suite_is_measured(subcommand, words, built):
    cli, err = built(subcommand, *words)
    assert classes(cli) == BROUGHT
    assert UNMEASURED not in err
    assert {"mia/reference_auroc", "memorization/perplexity_gap", "extraction/exact_rate"} <= measured(cli)


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_without_checkpointing_no_callback_keeps_checkpoints(subcommand, built):
    cli, _ = built(subcommand, "--trainer.enable_checkpointing", "false")
    assert classes(cli) == BROUGHT[:-1]


@pytest.mark.slow
def test_a_trainer_that_logs_nothing_measures_nothing(built):
    cli, err = built("fit", "--trainer.barebones", "true", "--trainer.num_sanity_val_steps", "0")
    assert (classes(cli), measured(cli)) == ([], set())
    assert err.splitlines().count(BAREBONES) == 1


@pytest.mark.slow
def test_options_of_the_section_are_set_one_by_one(built):
    cli, _ = built(
        "fit", "--memorization.extraction.n_members", "7", "--memorization.stop+=mia/loss_auroc > 0.7",
        "--memorization.attacks", '{"loss": {"class_path": "lit_mem.attacks.Loss"}}',
    )  # fmt: skip
    (extraction,) = [measure for measure in measures(cli.trainer) if type(measure).__name__ == "Extraction"]
    assert (extraction.n_members, extraction.n_heldout) == (7, 100)
    (stopping,) = [c for c in cli.trainer.callbacks if isinstance(c, ours.MemorizationEarlyStopping)]
    assert str(stopping.limits) == "mia/loss_auroc > 0.7"
    areas = {name for name in measured(cli) if name.startswith("mia/") and name.endswith("_auroc")}
    assert areas == {"mia/loss_auroc", "mia/strongest_auroc"}
    cli, _ = built("fit", "--memorization.extraction=null")
    assert not any(measure.generates for measure in measures(cli.trainer))
    cli, _ = built("fit", "--memorization.suite", "quick")
    assert not any(measure.generates for measure in measures(cli.trainer))


def test_a_run_goes_by_its_saved_configuration(built, tmp_path):
    cli, _ = built("fit", "--memorization.stop+=mia/loss_auroc > 0.7", "--memorization.extraction.prefix", "0.25")
    text = cli._parser("fit").dump(cli.config["fit"], skip_none=False)
    saved = yaml.safe_load(text)["memorization"]
    assert (saved["suite"], saved["stop"], saved["extraction"]["prefix"]) == (
        "standard",
        ["mia/loss_auroc > 0.7"],
        0.25,
    )
    (tmp_path / "config.yaml").write_text(text)
    again, _ = built("fit", "--config", "config.yaml")
    assert classes(again) == classes(cli)
    assert measured(again) == measured(cli)


@pytest.mark.slow
def test_listed_measures_are_all_that_there_is(built):
    cli, err = built("fit", "--trainer.callbacks+=lit_mem.callbacks.Perplexity")
    assert classes(cli) == ["Perplexity"]
    assert [type(measure) for measure in measures(cli.trainer)] == [ours.Perplexity]
    assert UNMEASURED not in err
    text = cli._parser("fit").dump(cli.config["fit"], skip_none=False)
    assert yaml.safe_load(text)["memorization"]["suite"] == "none"
    cli, err = built("fit", "--trainer.callbacks+=Perplexity", "--trainer.callbacks+=MembershipInference")
    assert classes(cli) == ["Perplexity", "MembershipInference"]


@pytest.mark.slow
def test_a_listed_measure_beside_the_section_takes_the_place_of_the_suites(built):
    words = ["--trainer.callbacks+=MembershipInference", "--trainer.callbacks.combined", "false"]
    cli, _ = built("fit", *words, "--memorization.suite", "quick")
    assert "mia/loss_auroc" in measured(cli)
    assert "mia/combined_auroc" not in measured(cli)
    assert "memorization/perplexity_gap" in measured(cli)


@pytest.mark.slow
def test_other_callbacks_do_not_turn_measuring_off(built):
    cli, _ = built("fit", "--trainer.callbacks+=EpochTable", "--trainer.callbacks.columns", "[val/loss]")
    assert classes(cli).count("EpochTable") == 1
    assert "mia/reference_auroc" in measured(cli)


@pytest.mark.slow
def test_a_run_that_measures_nothing_says_so_once(built):
    cli, err = built("fit", "--memorization.suite", "none")
    assert not measures(cli.trainer)
    assert err.splitlines().count(UNMEASURED) == 1
    assert "memorization.suite" in UNMEASURED
