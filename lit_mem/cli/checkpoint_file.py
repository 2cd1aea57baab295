"""Reject a checkpoint file that cannot be read, before a model is built."""

from __future__ import annotations

from pathlib import Path

from lit_mem.errors import CheckpointError
from lit_mem.models.checkpoint import read_content


def check_checkpoint(path: Path) -> None:
    """Load a checkpoint without executing code from it.

    Args:
        path: a .ckpt file, or the folder of a sharded checkpoint, of which only the layout is checked.

    Raises:
        CheckpointError: it cannot be read.
    """
    if not path.exists():
        raise CheckpointError(f"ckpt_path {path} does not exist")
    if path.is_dir():
        if not (path / ".metadata").is_file():
            raise CheckpointError(f"ckpt_path {path} is a folder; expected a .ckpt file or a sharded checkpoint")
        return
    if not path.is_file():
        raise CheckpointError(f"ckpt_path {path} is a pipe or a device; expected a .ckpt file")
    try:
        read_content(path, mmap=True, checksums=True)
    except CheckpointError as error:
        raise CheckpointError(f"ckpt_path {error}") from error
