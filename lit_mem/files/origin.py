"""How a run was started, `run.json`, and the names of the files beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from lit_mem.files import atomic

FILE: Final = "run.json"
"""Its name in a run's folder."""
CONFIG: Final = "config.yaml"
"""Name of the configuration file."""
CHECKS: Final = "checks.json"
"""Name of the file with the findings of the data checks."""


def write_origin(folder: Path, command: str, checkpoint: str | os.PathLike[str] | None, step: int) -> None:
    """Write into a run's folder how the run was started.

    Args:
        folder: the run's folder.
        command: "fit", "validate", "test" or "audit".
        checkpoint: the checkpoint that it starts from, or None.
        step: training steps done so far.
    """
    start = None
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        start = {"checkpoint": str(path), "relative": os.path.relpath(path, folder.absolute()), "global_step": step}
    atomic.write_text(folder / FILE, json.dumps({"schema": 1, "command": command, "from": start}, indent=1) + "\n")
