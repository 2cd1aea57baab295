"""Find the checkpoint that `ckpt_path` "last" or "best" refers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mem.errors import CheckpointError
from lit_mem.lightning.checkpoint import MemorizationCheckpoint
from lit_mem.lightning.run_folder import root_of_runs
from lit_mem.models.checkpoint_file import open_checkpoint


def find_checkpoint(trainer: pl.Trainer, which: Literal["last", "best"]) -> Path:
    """The newest run's last checkpoint, or its best one at that time.

    Lightning's own lookup uses the folder of the new run, which has none yet.

    Args:
        trainer: its loggers and callbacks determine where runs keep their checkpoints.
        which: "last" or "best".

    Raises:
        CheckpointError: there is none.
    """
    patterns = _patterns(trainer)
    found = [path for folder, pattern in patterns for path in folder.glob(pattern)]
    if not found:
        looked = " or ".join(str(folder / pattern) for folder, pattern in patterns if "attempt_" not in pattern)
        raise CheckpointError(f"ckpt_path {which}: found no {looked}")
    last = max(found, key=lambda path: path.stat().st_mtime_ns)
    return last if which == "last" else _best(last)


def _patterns(trainer: pl.Trainer) -> list[tuple[Path, str]]:
    """Folders, and patterns of last checkpoints below them."""
    keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, ModelCheckpoint)]
    keepers = [keeper for keeper in keepers if isinstance(keeper, MemorizationCheckpoint)] or keepers
    named = [(Path(keeper.dirpath), "last.ckpt") for keeper in keepers if keeper.dirpath is not None]
    root = root_of_runs(trainer)
    return named or [(root, "*/checkpoints/last.ckpt"), (root, "*/attempt_*/checkpoints/last.ckpt")]


def _best(last: Path) -> Path:
    """The best checkpoint at the time `last` was written."""
    try:
        states: dict[str, Any] = open_checkpoint(last, mmap=True)["callbacks"]
    except (CheckpointError, KeyError, TypeError) as error:
        raise CheckpointError(f"ckpt_path best: {last} is damaged") from error
    kept = [state for state in states.values() if "best_model_path" in state]
    # Prefer the one of `MemorizationCheckpoint`: those of other callbacks may be over its thresholds.
    kept = [state for state in kept if "safe_model_path" in state] or kept
    named = [state["best_model_path"] for state in kept]
    if not any(named):
        raise CheckpointError(f"ckpt_path best: the run of {last} had no validation under every threshold")
    best = Path(next(path for path in named if path))
    moved = last.with_name(best.name)  # the run's folder may have been moved
    for path in (best, moved):
        if path.exists():
            return path
    raise CheckpointError(f"ckpt_path best: {best} no longer exists")
