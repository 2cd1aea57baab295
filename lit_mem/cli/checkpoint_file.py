"""Reject a checkpoint file that cannot be read, before a model is built."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch

from lit_mem.cli.console import first_line
from lit_mem.errors import CheckpointError
from lit_mem.models.checkpoint import own_content


def check_checkpoint(path: Path) -> None:
    """Read a checkpoint, without any code in it.

    Args:
        path: a .ckpt file, or the folder of a sharded checkpoint, of which only the form is checked.

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
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"ckpt_path {path} is no checkpoint, or one that was cut short")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes checksums, and reads weights that do not match them
        if broken is not None:
            raise zipfile.BadZipFile(f"{broken} is not what was written there")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"ckpt_path {path} holds pickled objects; expected tensors and plain values only, as reading others "
            "could run code"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"ckpt_path {path} is damaged: {first_line(error)}") from error
    try:
        own_content(content)
    except CheckpointError as error:
        raise CheckpointError(f"ckpt_path {path}: {error}") from error
