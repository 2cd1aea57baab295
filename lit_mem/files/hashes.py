"""SHA-256 of files, and of plain values independent of their formatting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Hashed(NamedTuple):
    """Path, size and digest of a file.

    Attributes:
        path: relative to its folder, with "/" as separator.
        bytes: its size in bytes.
        sha256: of its content, 64 hexadecimal digits.
    """

    path: str
    bytes: int
    sha256: str


def hashed(folder: Path, paths: Iterable[Path]) -> list[Hashed]:
    """The SHA-256 of files below a folder, sorted by path; symlinks that lead out of the folder are skipped.

    Args:
        folder: that contains them.
        paths: of the files; anything but a regular file is skipped.

    Raises:
        OSError: one cannot be read.
    """
    root, found = folder.resolve(), []
    for path in sorted(set(paths)):
        if path.is_file() and path.resolve().is_relative_to(root):
            found.append(Hashed(path.relative_to(folder).as_posix(), *_of_file(path)))
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, read in chunks.

    Raises:
        OSError: it cannot be read.
    """
    return _of_file(path)[1]


def _of_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def canonical_digest(content: Any) -> str:
    """The SHA-256 of plain values, from their JSON with sorted keys, no spaces, in ASCII.

    So it does not depend on how a file is indented. Python writes each float with the fewest digits that round-trip,
    so values read from JSON keep the digest that they were written with.

    Args:
        content: values that JSON can hold; not NaN or infinity.

    Raises:
        ValueError: a number is not finite.

    >>> canonical_digest({"b": 1, "a": [0.1]}) == canonical_digest({"a": [0.1], "b": 1})
    True
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
