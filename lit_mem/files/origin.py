"""How a run's folder came to be, `run.json`, and what the files beside it are called."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from lit_mem.files import atomic

FILE: Final = "run.json"
"""Its name in a run's folder."""
CONFIG: Final = "config.yaml"
"""That of the configuration."""
CHECKS: Final = "checks.json"
"""That of what the checks of the texts found."""


def write_origin(folder: Path, command: str, checkpoint: str | os.PathLike[str] | None, step: int) -> None:
    """Write into a log folder how it came to be.

    Args:
        folder: of the run that begins.
        command: "fit", "validate", "test" or "audit".
        checkpoint: what it starts from; None: nothing.
        step: training steps done by then.
    """
    start = None
    if checkpoint is not None:
        path = Path(checkpoint).absolute()
        start = {"checkpoint": str(path), "relative": os.path.relpath(path, folder.absolute()), "global_step": step}
    atomic.write_text(folder / FILE, json.dumps({"schema": 1, "command": command, "from": start}, indent=1) + "\n")
