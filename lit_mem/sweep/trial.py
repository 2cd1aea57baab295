"""Run one trial: the same command line as a manual run, in its own process."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.files import atomic, modes
from lit_mem.files.untrusted import read_json

START: Final = ("-m", "lit_mem")
"""Interpreter arguments that start the command line."""

USAGE_ERROR: Final = 2
"""Exit code of a configuration error: a retry would fail the same way."""

LOG: Final = "log.txt"


class TrialFailed(Exception):
    """The run ended with an error."""


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a trial to its end, resuming from its last checkpoint if it was started before.

    Args:
        job: name, folder (of the trial), run (configuration files), values, seed, options, words.

    Returns:
        Its state, as in its `trial.json`.

    Raises:
        TrialFailed: it crashed, and may be retried; its state is in its `trial.json`.
    """
    folder = Path(job["folder"])
    modes.make_folder(folder)
    status = state(folder)
    if status.get("status") == "done":
        return status
    attempt = sum(1 for _ in folder.glob("attempt_*"))
    status = {key: job[key] for key in ("name", "values", "seed", "run", "options")} | {
        "status": "running", "error": None, "attempt": attempt,
    }  # fmt: skip
    _write(folder, status)
    start = time.monotonic()
    code = _train(job, folder, attempt)
    status["seconds"] = round(time.monotonic() - start, 1)
    status["status"] = "done" if code == 0 else "failed"
    if code != 0:
        status["error"] = _last_line(folder / LOG) or f"ended with code {code}"
    _write(folder, status)
    if code not in (0, USAGE_ERROR):
        raise TrialFailed(status["error"])
    return status


def state(folder: Path) -> dict[str, Any]:
    """The state of the trial in a folder; empty if it was not started."""
    try:
        status = read_json(folder / "trial.json")
    except (OSError, DataError):
        return {}
    return status if isinstance(status, dict) else {}


def words(job: Mapping[str, Any], folder: Path, attempt: int) -> list[str]:
    """Command-line arguments; each attempt logs to its own folder, so that logs of an interrupted run are kept."""
    loggers = [
        {
            "class_path": f"lightning.pytorch.loggers.{kind}",
            "init_args": {"save_dir": str(folder), "name": "", "version": f"attempt_{attempt}", **more},
        }
        for kind, more in (("TensorBoardLogger", {"default_hp_metric": False}), ("CSVLogger", {}))
    ]
    made = [
        "fit",
        *(f"--config={file}" for file in job["run"]),
        f"--trainer.logger={json.dumps(loggers)}",
        *job["words"],
    ]
    checkpoints = sorted(folder.glob("attempt_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    return [*made, f"--ckpt_path={checkpoints[-1]}"] if checkpoints else made


def _train(job: Mapping[str, Any], folder: Path, attempt: int) -> int:
    line = words(job, folder, attempt)
    modes.make_file(folder / LOG)
    with (folder / LOG).open("a") as log:
        log.write(f"$ lit-mem {shlex.join(line)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *START, *line],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=job["cwd"],
            # It imports from the same paths as the sweep, and from its working folder only if the sweep does.
            env=os.environ | {"PYTHONPATH": os.pathsep.join(job["path"]), "PYTHONSAFEPATH": "1"},
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()


def _end_with_parent() -> None:
    """Make the system end this process when the worker that started it exits for any reason."""
    set_parent_death_signal = 1  # <linux/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("error: ")]
    return (said or lines or [""])[-1].removeprefix("error: ")[:500]


def _write(folder: Path, status: Mapping[str, Any]) -> None:
    atomic.write_text(folder / "trial.json", json.dumps(status, indent=1) + "\n")
