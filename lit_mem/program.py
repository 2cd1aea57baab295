"""How the command line was started, so that usage lines and hints show the command that the user typed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Final

INSTALLED: Final = "lit-mem"
"""The command that the package installs; hints from a notebook or a library show it too."""


def command() -> str:
    """The command before a subcommand: `python train.py`, `python -m lit_mem` or `lit-mem`."""
    started = Path(sys.argv[0] if sys.argv else "")
    if started.name == "train.py":
        return f"python {shlex.quote(str(started))}"
    return name()


def name() -> str:
    """The program's name in a usage line: `train.py`, `python -m lit_mem` or `lit-mem`."""
    started = Path(sys.argv[0] if sys.argv else "")
    if started.name == "train.py":
        return "train.py"
    return "python -m lit_mem" if started.parts[-2:] == ("lit_mem", "__main__.py") else INSTALLED
