"""The hashes of a report: the SHA-256 of its files, and of its own content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lit_mem.files import facts, origin, record
from lit_mem.files.hashes import Hashed, canonical_digest, hashed
from lit_mem.functional.numbers import as_json

OUTSIDE: Final = ("digest", "documents")
"""Keys of a report that its digest does not cover: itself, and the documents that show the report."""

_OF_A_RUN: Final = (
    *(record.FILE, origin.FILE, origin.CONFIG, origin.CHECKS, facts.FILE, "metrics.csv", "privacy.jsonl"),
    *("localize.json", "where.json"),
)
_PERSONS: Final = "persons"  # importing `lit_mem.audit.person_file` is slow
_WEIGHTS: Final = ("*-adapter", "*-merged")


def files_of(folder: Path, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files of a run's folder that a report is made from, and the weights that the run has exported.

    Args:
        folder: of the run.
        report: of it.

    Raises:
        OSError: one cannot be read.
    """
    names = [folder / name for name in _OF_A_RUN]
    # Its names are hashed with a key. The table of examples has no key: with all rows except one computed, the hash of
    # the file would confirm a guess of that text. So it gets no hash.
    if report["persons"] is not None:
        names.append(folder / _PERSONS / report["persons"]["file"])
    return _listed("run", hashed(folder, [*names, *_weights(folder / "checkpoints")]))


def files_of_adapter(folder: Path) -> list[dict[str, Any]]:
    """The files of a folder of weights.

    Raises:
        OSError: one cannot be read.
    """
    return _listed("adapter", hashed(folder, folder.iterdir()))


def recorded_adapter(files: Sequence[Hashed]) -> list[dict[str, Any]]:
    """The files of an adapter as an audit found them."""
    return _listed("adapter", files)


def seal(report: Mapping[str, Any], files: Sequence[Mapping[str, Any]], written: str) -> dict[str, Any]:
    """A report as JSON has it, with its files and its digest.

    Args:
        report: as it was made.
        files: with path, bytes, sha256 and of ("run" or "adapter").
        written: the time.
    """
    # As it will be read: names as texts, numbers as JSON gives them back.
    made: dict[str, Any] = json.loads(json.dumps(as_json(report), allow_nan=False))
    made |= {"written": written, "files": [dict(one) for one in files]}
    return made | {"digest": digest_of(made)}


def digest_of(report: Mapping[str, Any]) -> str:
    """The SHA-256 of a report's content, except for the keys in `OUTSIDE`."""
    return canonical_digest({name: value for name, value in report.items() if name not in OUTSIDE})


def with_documents(report: Mapping[str, Any], folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """A sealed report, with the hashes of the documents that show it.

    Args:
        report: as `seal` gave it.
        folder: that the documents lie in.
        names: of them.

    Raises:
        OSError: one cannot be read.
    """
    return {**report, "documents": [one._asdict() for one in hashed(folder, [folder / name for name in names])]}


def _weights(checkpoints: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        for folder in checkpoints.glob(pattern):
            yield from folder.rglob("*")


def _listed(of: str, files: Sequence[Hashed]) -> list[dict[str, Any]]:
    return [{"of": of} | one._asdict() for one in files]
