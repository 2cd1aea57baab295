"""Start-up of the command line: which libraries are loaded, and what the user sees meanwhile."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

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

STAND_IN = """
import gc, runpy, sys, types
cli = types.ModuleType("lit_mem.cli.main")
cli.main = lambda: print("collecting" if gc.isenabled() and gc.get_freeze_count() else "not collecting")
sys.modules["lit_mem.cli.main"] = cli
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
        assert process.communicate(timeout=900)[0] == "collecting\n"
    seen = os.read(terminal, 1000).decode()
    os.close(terminal)
    assert seen.startswith("Loading lit_mem ...")
    assert seen.endswith("\r\033[K")  # back to the start of the line, which is erased


def test_a_file_gets_no_such_line():
    with started(subprocess.PIPE) as process:
        out, errors = process.communicate(timeout=900)
    assert (out, errors) == ("collecting\n", "")
