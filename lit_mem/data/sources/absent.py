"""Errors for paths that do not exist, with suggestions."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lit_mem.errors import DataError

_MOST_LISTED: Final = 20


def check_there(path: str, pattern: bool, suffixes: Sequence[str]) -> None:
    """Raise if a path matches no file, folder or pattern, and suggest what may be meant.

    Args:
        path: the path given by the user.
        pattern: whether it is a glob pattern.
        suffixes: suffixes of supported files.

    Raises:
        DataError: the path matches nothing.
    """
    if not path.strip():
        raise DataError(f"the path of a data file is empty; expected a file ({', '.join(suffixes)})")
    try:
        path.encode()
        file = Path(path).expanduser()
        if file.is_file() or file.is_dir():
            return
    except UnicodeEncodeError as error:
        raise DataError(f"{path!a}: the name of this file is not UTF-8; rename it") from error
    except (OSError, RuntimeError) as error:  # a name that is too long; an unknown user as in ~user
        raise DataError(f"{path}: cannot be found ({getattr(error, 'strerror', None) or error})") from error
    if file.is_symlink():
        raise DataError(f"{path}: is a link to {os.readlink(file)}, which does not exist")
    if file.exists():
        raise DataError(f"{path}: is a pipe or a device; expected a file ({', '.join(suffixes)})")
    if pattern:
        if not any(Path(name).is_file() for name in glob.iglob(os.path.expanduser(path), recursive=True)):
            raise DataError(f"{path}: no file matches this pattern (relative to {Path.cwd()})")
        return
    if not file.parent.is_dir():
        raise DataError(
            f"{path}: no such file; the folder {str(file.parent)!r} does not exist (relative to {Path.cwd()})"
        )
    here = sorted(entry.name for entry in file.parent.iterdir())
    if len(here) > _MOST_LISTED:  # maybe one per person: do not print such names
        raise DataError(f"{path}: no such file; the folder has {len(here)} others (relative to {Path.cwd()})")
    close = difflib.get_close_matches(file.name, here, n=3, cutoff=0.6)
    close += [name for name in here if Path(name).stem == file.stem and name not in close]
    hint = f"; the folder has {', '.join(map(repr, close))}" if close else f" (relative to {Path.cwd()})"
    raise DataError(f"{path}: no such file{hint}")
