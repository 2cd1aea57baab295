"""Configurations that ship are found by name from any folder; a file that exists wins."""

import sys
from pathlib import Path

import pytest
import yaml

from lit_mem.cli import main as cli
from lit_mem.files import shipped
from lit_mem.sweep import trial

ROOT = Path(__file__).parents[2]
PRINT = "--print_config=skip_default"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that holds nothing, from which the command line is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lit-mem"])
    return tmp_path


def test_every_configuration_has_its_name():
    files = [path.relative_to(ROOT / "configs").with_suffix("") for path in (ROOT / "configs").rglob("*.yaml")]
    assert shipped.names() == sorted(path.as_posix() for path in files)
    assert {"quickstart", "own_data", "llama2_7b_phee", "smollm2_phee", "variants/4bit"} < set(shipped.names("run"))
    assert set(shipped.names("sweep")) == {f"sweeps/{name.stem}" for name in (ROOT / "configs/sweeps").glob("*.yaml")}
    assert not set(shipped.names("run")) & set(shipped.names("sweep"))


@pytest.mark.parametrize("given", ["variants/4bit", "variants/4bit.yaml", "configs/variants/4bit.yaml"])
def test_a_name_may_look_like_the_file_of_a_checkout(given):
    assert shipped.find(given).read_bytes() == (ROOT / "configs" / "variants" / "4bit.yaml").read_bytes()


@pytest.mark.parametrize("given", ["", "4bit", "variants", "variants/", "../configs/quickstart", "/quickstart", "x"])
def test_no_other_name_is_found(given):
    assert shipped.find(given) is None


def test_a_file_wins(elsewhere):
    (elsewhere / "variants").mkdir()
    (elsewhere / "variants" / "4bit").write_text("model: {}\n")
    assert shipped.find("variants/4bit") == Path("variants/4bit")


def test_an_installed_package_has_them_inside(elsewhere, monkeypatch):
    (elsewhere / "lit_mem" / "configs").mkdir(parents=True)
    (elsewhere / "lit_mem" / "configs" / "one.yaml").touch()
    monkeypatch.setattr(shipped.importlib.resources, "files", lambda name: elsewhere / name)
    assert shipped.names() == ["one"]


def test_fit_takes_names_in_order(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "--config", "quickstart", "--config=variants/goldfish", "-c", "variants/multi_gpu", PRINT])
    assert ended.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["model_id"] == "asset:tiny_llama"
    assert config["model"]["loss"]["goldfish_k"] == 4
    assert (config["trainer"]["strategy"], config["trainer"]["max_epochs"]) == ("ddp", 10)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["fit", "--config", "quickstrat"], "llama2_7b_phee, own_data, quickstart, "),
        (["validate", "--config", "configs/none.yaml"], "llama2_7b_phee, own_data, quickstart, "),
        (["sweep", "--config", "rank"], "sweeps/adapters, sweeps/datasets, "),
        (["sweep", "--config", "sweeps/rank", "--run=[quickstrat]"], "llama2_7b_phee, own_data, quickstart, "),
    ],
)
def test_another_name_is_one_line_with_the_names_there_are(words, names, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert names in said


def test_yaml_on_the_command_line_is_still_read(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "--config", "{trainer: {max_epochs: 3}}", PRINT])
    assert ended.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 3


def test_a_sweep_finds_its_own_file_and_that_of_its_runs(elsewhere, capsys):
    cli.main(["sweep", "--config", "sweeps/rank", "--run=[sweeps/runs/smollm2_phee]", "--dry_run=true"])
    assert len(capsys.readouterr().out.splitlines()) == 7 * 3
    cli.main(["sweep", "--config", "sweeps/rank", "--dry_run=true"])  # its file says configs/sweeps/runs/bundled.yaml
    assert len(capsys.readouterr().out.splitlines()) == 7 * 3
    assert not list(elsewhere.iterdir())


def test_a_trial_is_started_without_any_script():
    assert trial.START == ("-m", "lit_mem")
