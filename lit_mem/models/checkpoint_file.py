"""The only place where checkpoints are opened: without executing code, and with one-line errors."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from lit_mem.errors import CheckpointError, first_line


def open_checkpoint(
    path: Any, map_location: Any = None, mmap: bool = False, checksums: bool = False
) -> Mapping[str, Any]:
    """Load a checkpoint: tensors and plain values only. Every checkpoint is opened here.

    Args:
        path: path of a file, or an open file.
        map_location: as for `torch.load`; None: the CPU, whatever device it was saved from.
        mmap: map the file, reading tensor values on first use; requires a path.
        checksums: verify the file's checksums first, which torch does not do; requires a path.

    Raises:
        CheckpointError: it does not exist, is not a checkpoint, is damaged, or holds pickled objects; the message
            begins with the path.
    """
    if isinstance(path, str | os.PathLike) and not zipfile.is_zipfile(path):
        found = "is not a checkpoint, or is truncated" if os.path.exists(path) else "does not exist"
        raise CheckpointError(f"{path} {found}")
    try:
        if checksums:
            _compare_checksums(path)
        where = "cpu" if map_location is None else map_location
        content: Mapping[str, Any] = torch.load(path, map_location=where, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} contains pickled objects; expected tensors and plain values only, since unpickling can execute "
            "code"
        ) from error
    except Exception as error:  # torch raises many exception types for a damaged file
        raise CheckpointError(f"{path} is damaged: {first_line(error) or type(error).__name__}") from error
    return content


def _compare_checksums(path: Any) -> None:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"{broken} does not match its checksum")
