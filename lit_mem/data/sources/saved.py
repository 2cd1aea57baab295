"""Detect folders written by `save_to_disk` of `datasets`, and their sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from lit_mem.errors import DataError

_ONE: Final = ("state.json", "dataset_info.json")
_SEVERAL: Final = "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether a folder is a saved `Dataset`."""
    return all((folder / name).is_file() for name in _ONE)


def saved_sets(path: str, folder: Path) -> list[str] | None:
    """The sets of a saved `DatasetDict`, in its order; None for another folder.

    Args:
        path: the path given by the user.
        folder: the folder.

    Raises:
        DataError: its list of sets is malformed.
    """
    file = folder / _SEVERAL
    if not file.is_file():
        return None
    try:
        names = json.loads(file.read_text("utf-8"))["splits"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: its {_SEVERAL} cannot be read ({type(error).__name__})") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: its {_SEVERAL} has no list of sets; expected at least one name")
    for name in names:
        if Path(name).name != name or not is_saved(folder / name):
            raise DataError(f"{path}: its {_SEVERAL} lists a set that is not a saved folder in it")
    return names
