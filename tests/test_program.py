"""The three ways to start the command line, and that usages and hints show the one that was used."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lit_mem import __version__, program
from lit_mem.audit.closing import next_steps
from lit_mem.cli import main as cli
from lit_mem.cli.trainer_cli import DESCRIPTION
from lit_mem.privacy.carried import adds_up, of_several
from lit_mem.privacy.ledger import LEDGER

ROOT = Path(__file__).parent.parent
STARTED = [
    ("train.py", "train.py", "python train.py"),
    ("../my code/train.py", "train.py", "python '../my code/train.py'"),
    ("/env/bin/lit-mem", "lit-mem", "lit-mem"),
    ("/env/lib/lit_mem/__main__.py", "python -m lit_mem", "python -m lit_mem"),
    ("/env/lib/pytest/__main__.py", "lit-mem", "lit-mem"),  # a library that calls `main`
    ("-c", "lit-mem", "lit-mem"),
    ("", "lit-mem", "lit-mem"),
]


@pytest.mark.parametrize(("argument", "name", "command"), STARTED)
def test_name_and_command(argument, name, command, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argument])
    assert (program.name(), program.command()) == (name, command)


def test_without_any_argument(monkeypatch):
    monkeypatch.setattr(sys, "argv", [])
    assert program.command() == "lit-mem"


@pytest.mark.parametrize(("argument", "name", "command"), STARTED[:4])
def test_hints_show_the_command_that_was_used(argument, name, command, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [argument])
    assert next_steps("logs/x", True)[-1] == f"Next: {command} report logs/x"
    assert f"; {command} privacy adds up" in adds_up()
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / LEDGER).touch()
    hint = of_several(tmp_path / "a b").partition(f"{command} ")[2]
    assert shlex.split(hint) == ["privacy", str(tmp_path / "a b")]


@pytest.mark.parametrize("words", [["--help"], ["report", "--help"], ["privacy", "--help"], ["doctor", "--help"]])
def test_usages_show_it(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/env/lib/lit_mem/__main__.py"])
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: python -m lit_mem", *words[:-1], "["]))


def test_the_description_names_every_command():
    listed = {word.strip(",.;()") for word in DESCRIPTION.split()}
    assert {"doctor", "localize", "privacy", "report", "sweep", "where"} <= cli.COMMANDS.keys()
    assert cli.COMMANDS.keys() <= listed


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lit-mem"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"lit-mem {__version__}\n")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_as_a_module_from_another_folder(tmp_path):
    line = [sys.executable, "-m", "lit_mem", "report", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=900)
    assert done.stdout.startswith("usage: python -m lit_mem report [")
