"""The three ways to start the command line, and that usages and hints show the one that was used."""

import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lit_mem import __version__, program
from lit_mem.audit.closing import next_steps
from lit_mem.cli import main as cli
from lit_mem.cli.commands import COMMANDS
from lit_mem.cli.light import run_light
from lit_mem.cli.trainer_cli import MemorizationCLI
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


def test_the_usage_lists_every_command_of_the_table_with_what_it_does(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    out = capsys.readouterr().out
    assert f"{{{','.join(COMMANDS)}}}" in out.partition("\n\n")[0].replace("\n", "").replace(" ", "")
    listed = [line.split(maxsplit=1) for line in out.partition("Each has its own --help.")[2].splitlines()[1:]]
    rows = [line for line in listed if len(line) == 2]
    assert rows == [[name, command.does] for name, command in COMMANDS.items()]


def test_every_command_of_the_table_runs_something():
    of_trainer = {name for name, command in COMMANDS.items() if command.module is None}
    assert of_trainer == MemorizationCLI.subcommands().keys()
    for command in COMMANDS.values():
        assert command.module is None or callable(import_module(command.module).main)


@pytest.mark.parametrize("run", [cli.main, run_light])
@pytest.mark.parametrize(
    ("words", "said"),
    [([], ["no command", *COMMANDS]), (["audti"], ["audti", "did you mean audit?"]), (["xyz"], ["xyz", *COMMANDS])],
)
def test_a_missing_or_unknown_command_is_one_line_that_names_the_known_ones(run, words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        run(words)
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in said)


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
