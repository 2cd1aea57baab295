"""Start-up of the command line: which libraries are loaded, what the user sees meanwhile, and a closed pipe."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lit_mem.cli.closed_pipe import ended_by_closed_pipe
from lit_mem.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent
LATER = {"datasets", "matplotlib.figure", "pandas", "peft", "pyarrow", "sklearn", "tensorboard"}
"""Libraries that take long to import, and are not needed to read a configuration."""

LOADED = """
import sys
import lightning.pytorch.cli, lightning.pytorch.loggers  # load matplotlib and all of torchmetrics by themselves
before = set(sys.modules)
import lit_mem.cli.main
print(*(set(sys.modules) - before))
"""

HEAVY = {
    "accelerate", "datasets", "lightning", "matplotlib", "pandas", "peft", "pyarrow", "ray", "scipy",
    "sklearn", "tensorboard", "torch", "torchmetrics", "transformers",
}  # fmt: skip
"""Libraries that no help needs, except that of Lightning's own commands."""

OWN = [name for name, command in COMMANDS.items() if command.module is not None]
"""Commands with a parser of their own."""

RUN = """
import atexit, runpy, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""

STAND_IN = """
import gc, runpy, sys, types
cli = types.ModuleType("lit_mem.cli.main")
def main(ready):
    for _ in range(2):
        print("collecting" if gc.isenabled() and gc.get_freeze_count() else "not collecting")
        ready()
cli.main = main
sys.modules["lit_mem.cli.main"] = cli
sys.argv = ["train.py", "fit"]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_the_command_line_leaves_to_later_what_it_does_not_need_yet():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True, timeout=900
    )
    loaded = set(done.stdout.split())
    assert "lit_mem.audit.measures.membership" in loaded  # the list is one of modules
    assert not loaded & LATER
    assert not {name for name in loaded if name.startswith("torchmetrics.functional.text")}


def started(stderr):
    return subprocess.Popen(
        [sys.executable, "-c", STAND_IN], cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def test_a_terminal_shows_at_once_that_something_happens_and_keeps_no_trace_of_it():
    terminal, end = pty.openpty()
    with started(end) as process:
        os.close(end)
        assert process.communicate(timeout=900)[0] == "not collecting\ncollecting\n"
    seen = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert seen.startswith("Loading lit_mem ...")
    assert seen.endswith("\r\033[K")  # back to the start of the line, which is erased


def test_a_file_gets_no_such_line():
    with started(subprocess.PIPE) as process:
        out, errors = process.communicate(timeout=900)
    assert (out, errors) == ("not collecting\ncollecting\n", "")


def run(*words, stdout=subprocess.PIPE):
    """As from a shell; modules that were loaded by the end are the last line of standard error."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", RUN, *words]
    return subprocess.run(
        command, cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, check=False, timeout=900
    )


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in OWN)], ids=" ".join
)
def test_help_loads_no_heavy_library(words):
    done = run(*words)
    assert done.returncode == 0
    (modules,) = done.stderr.splitlines()  # nothing else is printed there
    loaded = {name.partition(".")[0] for name in modules.split()}
    assert "lit_mem" in loaded  # the list is one of modules
    assert not HEAVY & loaded
    name = words[0].replace("where", "localize")
    usage = f"usage: train.py {name} " if words[0] in OWN else "usage: train.py ["
    assert done.stdout.startswith("train.py " if name == "--version" else usage)


@pytest.mark.slow
def test_the_trainers_help_loads_the_trainer_and_nothing_that_only_a_run_needs():
    done = run("fit", "--help")
    assert done.returncode == 0
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"torch", "lightning", "torchmetrics.metric"} <= loaded
    assert not {"peft", "ray", "scipy.signal", "scipy.stats", "sklearn", "torchmetrics.classification"} & loaded


@pytest.fixture
def closed_pipe():
    """The end for writing, of a pipe that no one reads."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["report", "--help"],
        ["init", "lit_mem/assets/notes/notes.jsonl", "--model", "asset:tiny_llama", "--output", "{}/notes.yaml"],
        ["doctor"],
        pytest.param(["sweep", "--config", "sweeps/rank", "--dry_run", "true"], marks=pytest.mark.slow),
        pytest.param(["fit", "--print_config"], marks=pytest.mark.slow),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_closed_pipe_ends_every_command_quietly(words, closed_pipe, tmp_path):
    done = run(*(word.format(tmp_path) for word in words), stdout=closed_pipe)
    assert done.returncode == 141
    assert len(done.stderr.splitlines()) == 1  # that of the modules


def test_an_error_keeps_its_exit_code_beside_a_closed_pipe(closed_pipe):
    done = run("verify", "nosuch", stdout=closed_pipe)
    assert done.returncode == 2
    assert done.stderr.startswith("error: verify: there is no file nosuch")


def test_a_broken_pipe_to_something_else_is_an_error_as_before():
    with pytest.raises(BrokenPipeError), ended_by_closed_pipe():
        raise BrokenPipeError


DEFERRED = """
import sys
from lit_mem.cli import deferred
deferred.RELEASE = deferred.RELEASE if sys.argv[1] == "known" else "0.0."
if sys.argv[1] != "eager":
    deferred.defer()
from torchmetrics import Metric, MetricCollection
from torchmetrics.functional.text.rouge import rouge_score
print("torchmetrics.classification" in sys.modules)
import torchmetrics
for package in (torchmetrics, torchmetrics.functional, torchmetrics.functional.text):
    for name in sorted(package.__all__):
        print(package.__name__, name, getattr(package, name))
    print(type(package), sorted(vars(package)))
print(Metric is torchmetrics.Metric, MetricCollection is torchmetrics.MetricCollection)
print(rouge_score is torchmetrics.functional.text.rouge_score)
print(sorted(name for name in sys.modules if name.startswith(("torchmetrics", "scipy.signal"))))
"""


@pytest.mark.slow
def test_every_name_of_torchmetrics_is_as_without_deferring_it():
    found = {}
    for case in ("eager", "known", "another release"):
        command = [sys.executable, "-c", DEFERRED, case]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=900)
        first, found[case] = done.stdout.split("\n", 1)
        assert first == ("False" if case == "known" else "True")  # whether its `__init__` has run
    plain = {case: re.sub(r" at 0x[0-9a-f]+", "", text) for case, text in found.items()}
    assert plain["known"] == plain["eager"] == plain["another release"]
    assert plain["eager"].count("\n") > 200
    assert plain["eager"].splitlines()[-3:-1] == ["True True", "True"]
