"""File permissions of what a run writes: owner only, whatever the umask, unless `LIT_MEM_UMASK` is set.

The process's umask is not changed: it also applies to what other libraries write, such as models in a shared download
cache, which must stay readable.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path
from typing import Final

from lit_mem.errors import ConfigError
from lit_mem.files.once import Once

log = logging.getLogger(__name__)

VARIABLE: Final = "LIT_MEM_UMASK"
"""Environment variable with the permissions to remove, in octal; 077 by default. 027: the group may read."""

_once = Once()


def mask() -> int:
    """The permission bits to remove.

    Raises:
        ConfigError: `LIT_MEM_UMASK` is not an octal number, or removes the owner's access.
    """
    given = os.environ.get(VARIABLE, "").strip() or "077"
    if not re.fullmatch(r"(0o)?0*[0-7]{1,3}", given) or int(given, 8) > 0o77:
        raise ConfigError(
            f"{VARIABLE} is {given!r}; expected an octal number from 000 to 077, such as 077 (the owner alone, the "
            "default), 027 (the group may read) or 007 (the group may write too)"
        )
    return int(given, 8)


def make_folder(folder: Path, fresh: bool = False) -> None:
    """Make a folder and its missing parents; an existing one keeps its permissions.

    Args:
        folder: the folder to make.
        fresh: fail if it exists.

    Raises:
        FileExistsError: it exists and `fresh` is set, or a file has its name.
        OSError: it cannot be made.
    """
    if not folder.parent.exists():
        make_folder(folder.parent)
    try:
        folder.mkdir(0o700)
    except FileExistsError:
        if fresh or not folder.is_dir():
            raise
    else:
        restrict(folder)


def make_file(path: Path) -> None:
    """Create an empty file before anything is written to it; an existing one keeps its content.

    Raises:
        OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    restrict(path)


def restrict(path: Path) -> None:
    """Set the permissions of a file or folder that lit_mem wrote; warn once where that is not possible.

    Skips symlinks and what belongs to another user.
    """
    try:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
            return
        wanted = (0o777 if stat.S_ISDIR(found.st_mode) else 0o666) & ~mask() | found.st_mode & 0o7000
        if stat.S_IMODE(found.st_mode) == wanted or os.name == "nt" or found.st_uid != os.geteuid():
            return
        os.chmod(path, wanted)
        kept = stat.S_IMODE(path.lstat().st_mode) == wanted
    except FileNotFoundError:  # another process has moved or removed it
        return
    except OSError:
        kept = False
    if not kept and _once.first():
        log.warning(
            "Warning: %s: the file system does not support permissions; others with access to it may read what is "
            "written there.", path,
        )  # fmt: skip


def restrict_all(folder: Path) -> None:
    """Set the permissions of a folder and of everything in it, whichever library wrote it."""
    restrict(folder)
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            restrict(Path(place, name))
