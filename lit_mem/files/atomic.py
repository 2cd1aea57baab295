"""Files and folders that are whole under their names at every moment, whatever ends the process or the disk's room."""

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
    """Write a file, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, "utf-8", newline="")


@contextmanager
def whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """Have the body write a file under another name, which becomes `path` once all of it is on the disk.

    It is there already, empty and for its owner alone: what is written is never open to others in between.

    Args:
        path: of the file.
        shared: whether several processes may write it at the same time, as in a cache. Each has a part of its own,
            `.<name>.<random>.part`, and the last one stays. As a cache checks what it reads, the body's end does not
            wait for the disk.

    Raises:
        OSError: naming `path`; what had the name before is still there.
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
    remove(part)  # of a run that was killed
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # no link of another user's is followed
    return part


def _own_part(path: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    return Path(name)


def put(fresh: Path, target: Path) -> None:
    """Give what is finished its name, in place of what has it now; both lie on the same file system.

    A file takes over in one step, and so does a folder where the system can exchange two (Linux, on most of its file
    systems). Elsewhere the old folder is called `.<name>.old` between two steps, and `settle` ends what a kill at that
    moment left.

    Args:
        fresh: a file or folder; the name is free afterwards.
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
    """Have `target` be there and nothing else be left, should a `put` have been killed."""
    if _old(target).exists() and not target.exists():
        os.rename(_old(target), target)
    remove(_old(target))


def _old(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _exchange(one: Path, other: Path) -> bool:
    """Have two files or folders swap names in one step; False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an old C library
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def sync(path: Path) -> None:
    """Have the system put a file, or a folder with all in it, on the disk now: a name must not outlive its content.

    Each gets the permissions of `files.modes`, as libraries write files for all to read.
    """
    modes.restrict(path)
    if path.is_dir():
        for inner in path.iterdir():
            sync(inner)
        sync_names(path)
    else:
        _sync(path)


def sync_names(folder: Path) -> None:
    """Have the system put on the disk which names a folder has, where its file system supports that."""
    with suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have libraries put their temporary files there.

    Lightning writes a checkpoint to the system's temporary folder and moves it, which on another file system is a copy.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the file system in the body name this file, as what writes it may not.

    Raises:
        OSError: the body's, or what safetensors made of one.
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
