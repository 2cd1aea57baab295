"""Seconds from the start of a process to the first training step, and to the end of each `--help`.

Each row is a command in a process of its own:

- first step: `train.py fit --config configs/quickstart.yaml` up to the first training step, so with the imports, the
  configuration, the data and the validation before training.
- imports: what that command imports before it reads its configuration.
- the others: `train.py COMMAND --help`.

Processor seconds are those of all threads of the process; another job on the machine changes them less than seconds on
the clock. Rows take turns, and the minimum of each is shown.

    python -m benchmarks.startup
    python -m benchmarks.startup --repeats 1 --only imports --help-of report
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.setting import device_of, machine, options
from benchmarks.table import Table, tell
from lit_mem.cli.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
TRAIN = str(ROOT / "train.py")
PARTS: dict[str, list[str]] = {
    "first step": [
        TRAIN, "fit", "--config", str(ROOT / "configs" / "quickstart.yaml"),
        "--trainer.callbacks+=benchmarks.first_step.FirstStep",
    ],
    "imports": [
        "-c",
        "import gc; gc.disable(); from lit_mem.cli.deferred import defer; defer(); import lit_mem.cli.main",
    ],
}  # fmt: skip


def measured(words: list[str], folder: str) -> tuple[float, float]:
    """Processor and wall seconds of a Python process in a folder.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{words} ended with code {process.returncode}: {said.read().decode()[-1000:]}")
    return used.ru_utime + used.ru_stime, wall


def run(args: argparse.Namespace) -> list[Table]:
    """The table."""
    commands = {name: PARTS[name] for name in args.only}
    commands |= {f"{name} --help".strip(): [TRAIN, *name.split(), "--help"] for name in args.help_of}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(args.repeats):
        for name, words in commands.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(measured(words, folder))
    rows: list[list[Any]] = [
        [name, min(processor for processor, _ in each), min(wall for _, wall in each)] for name, each in found.items()
    ]
    title = f"minimum of {args.repeats}; {machine(device_of(args))}"
    return [Table(title, ["", "processor s", "wall s"], rows)]


def made_options() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = options(__doc__)
    made.add_argument(
        "--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="rows besides those of --help"
    )
    made.add_argument(
        "--help-of", nargs="*", choices=["", *COMMANDS], default=["", *COMMANDS], help="commands; '': the program's own"
    )
    return made


def main() -> None:
    """Print the table."""
    args = made_options().parse_args()
    tell(args, "startup", run(args))


if __name__ == "__main__":
    main()
