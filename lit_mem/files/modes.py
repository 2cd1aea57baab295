"""Who may read what a run writes: its owner alone, whatever the process's umask, unless `LIT_MEM_UMASK` says otherwise.

The mask is this package's own. The process's one also rules what others write: a model that the hub's libraries
download to a cache of many users has to stay readable for them.
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
"""Environment variable with the permissions to withhold, in octal; 077 by default. 027: the group may read."""

_once = Once()


def mask() -> int:
    """The permissions that are withheld.

    Raises:
        ConfigError: `LIT_MEM_UMASK` is no such number, or takes the owner's own access away.
    """
    given = os.environ.get(VARIABLE, "").strip() or "077"
    if not re.fullmatch(r"(0o)?0*[0-7]{1,3}", given) or int(given, 8) > 0o77:
        raise ConfigError(
            f"{VARIABLE} is {given!r}; expected an octal number from 000 to 077, such as 077 (the owner alone, the "
            "default), 027 (the group may read) or 007 (the group may write too)"
        )
    return int(given, 8)


def make_folder(folder: Path, fresh: bool = False) -> None:
    """Make a folder, and those above it that are missing; one that is there keeps its permissions.

    Args:
        folder: to make.
        fresh: fail where it is there.

    Raises:
        FileExistsError: it is there, and `fresh` is set; or a file has its name.
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
    """Have an empty file be there before anything is written into it; the content of one that is there stays.

    Raises:
        OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    restrict(path)


def restrict(path: Path) -> None:
    """Set the permissions of one file or folder that this package owns; where that cannot be, a warning says so once.

    Links are left alone, and so is what belongs to another user.
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
            "Warning: %s: permissions cannot be set on this file system; others who can reach it may read what is "
            "written there.", path,
        )  # fmt: skip


def restrict_all(folder: Path) -> None:
    """Set the permissions of a folder that this package owns and of all in it, whichever library wrote it."""
    restrict(folder)
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            restrict(Path(place, name))
