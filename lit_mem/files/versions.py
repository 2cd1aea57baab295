"""Folders `version_0`, `version_1`, … of consecutive runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

from lit_mem.files import modes


def free_versions(root: Path) -> Iterator[Path]:
    """The next free folders; another process may take one first."""
    ends = [path.name.removeprefix("version_") for path in root.glob("version_*")]
    first = 1 + max((int(end) for end in ends if end.isdigit()), default=-1)
    return (root / f"version_{number}" for number in count(first))


def claim_version(root: Path) -> Path:
    """Make the next free folder for a run.

    Raises:
        OSError: it cannot be made.
    """
    modes.make_folder(root)
    for folder in free_versions(root):
        try:
            modes.make_folder(folder, fresh=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError
