"""Atomic writes: files and folders are complete under their names even if the process dies or the disk is full."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from safetensors import SafetensorError

from lit_mem.files import modes

_AT_FDCWD: Final = -100  # <fcntl.h>: a path is relative to the working directory
_RENAME_EXCHANGE: Final = 2  # <linux/fs.h>


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    with whole(path) as part:
        part.write_text(text, "utf-8", newline="")


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """Let the body write a temporary file, which is renamed to `path` once it is complete and on the disk.

    The temporary file exists before the body runs, empty and readable by its owner only, so that its content is never
    exposed.

    Args:
        path: final path of the file.
        shared: whether several processes may write it at the same time, as in a cache. Each writes its own file,
            `.<name>.<random>.part`, and the last rename wins. A cache verifies what it reads, so this does not wait
            for the disk.

    Raises:
        OSError: naming `path`; the previous file is unchanged.
    """
    with naming(path):
        part = _own_part(path) if shared else _part(path)
        try:
            yield part
            if shared:
                modes.restrict(part)
            else:
                sync(part)
            put(part, path)
        finally:
            remove(part)


def _part(path: Path) -> Path:
    part = path.with_name(f".{path.name}.part")
    remove(part)  # left by a run that was killed
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # do not follow another user's symlink
    return part


def _own_part(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    return Path(name)


def put(fresh: Path, target: Path) -> None:
    """Move a finished file or folder into place, replacing what is there; both are on the same file system.

    A file is replaced atomically. So is a folder where the system can exchange two (Linux, on most file systems).
    Elsewhere the old folder is renamed `.<name>.old` in between; after a kill at that moment, `settle` restores a
    consistent state.

    Args:
        fresh: the finished file or folder; its old name is free afterwards.
        target: its new name.
    """
    if not (target.is_dir() or (fresh.is_dir() and target.exists())):
        os.replace(fresh, target)
    elif _exchange(fresh, target):
        remove(fresh)
    else:
        remove(_old(target))
        os.rename(target, _old(target))
        os.rename(fresh, target)
        remove(_old(target))


def settle(target: Path) -> None:
    """Finish or undo a `put` that was killed: `target` exists and nothing else is left."""
    if _old(target).exists() and not target.exists():
        os.rename(_old(target), target)
    remove(_old(target))


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Swap the names of two files or folders atomically; False if the system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def sync(path: Path) -> None:
    """Flush a file, or a folder with its content, to the disk, so that no name outlives its content.

    Each gets the permissions of `files.modes`, since libraries write world-readable files.
    """
    modes.restrict(path)
    if path.is_dir():
        for inner in path.iterdir():
            sync(inner)
        sync_names(path)
    else:
        _sync(path)


def sync_names(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system supports it."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Make libraries put their temporary files in `folder`.

    Lightning writes a checkpoint to the system's temporary folder and moves it, which on another file system is a copy.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make file-system errors in the body name this file.

    Raises:
        OSError: the body's, also one that safetensors wrapped.
    """
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except SafetensorError as error:
        code = re.search(r"\(os error (\d+)\)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error
