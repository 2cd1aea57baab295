"""Whether the files that a report names are unchanged since it was written. Imports no slow library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple

from lit_mem.errors import DataError
from lit_mem.files.facts import is_hashed
from lit_mem.files.hashes import sha256_of
from lit_mem.files.untrusted import LARGEST, parse_json, read_text
from lit_mem.report.sealed import digest_of

State = Literal["same", "changed", "missing"]

FIRST_SCHEMA: Final = 2
"""Of reports that hold hashes."""
_MOST: Final = 100_000


class Checked(NamedTuple):
    """A file, and whether it is unchanged.

    Attributes:
        path: as the report names it.
        state: "same", "changed" or "missing".
        note: a remark; "" for none.
    """

    path: str
    state: State
    note: str = ""


def verify(report: Path, folder: Path | None = None, adapter: Path | None = None) -> list[Checked]:
    """Compare a report with itself, and with the files that it names, in this order.

    A file whose size has changed is not read.

    Args:
        report: `report.json`.
        folder: of the run; None: that of the report.
        adapter: of the weights, where these do not lie in the run's folder; None: not given, so that they are missing.

    Raises:
        DataError: the report is not JSON, is too large, has no hashes, or names a path outside of these folders.
        OSError: a file cannot be read.
    """
    content = read_report(report)
    try:
        own: State = "same" if digest_of(content) == content["digest"] else "changed"
    except ValueError:
        raise DataError(f"{report}: found NaN or an infinity; expected JSON, which has neither") from None
    found = [Checked(report.name, own)]
    for one in content["documents"]:
        found.append(_checked(report, report.parent, one))
    for one in content["files"]:
        if one["of"] == "adapter" and adapter is None:
            found.append(Checked(one["path"], "missing", "it is in the adapter's folder, which --adapter names"))
            continue
        place = adapter if one["of"] == "adapter" and adapter is not None else folder or report.parent
        found.append(_checked(report, place, one))
    return found


def read_report(path: Path) -> dict[str, Any]:
    """A report as plain values, with the form of its hashes checked.

    Raises:
        DataError: it is not a report of a run with hashes.
        OSError: it cannot be read.
    """
    text = read_text(path, DataError, LARGEST)
    found = parse_json(text, str(path))
    _check_names(text, path)
    if not isinstance(found, dict) or found.get("kind") not in ("run", "sweep"):
        raise DataError(f"{path}: is not a report; expected report.json as lit-mem report writes it")
    if found["kind"] == "sweep":
        raise DataError(f"{path}: is the report of a sweep, which has no hashes; expected that of a run")
    schema = found.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < FIRST_SCHEMA:
        raise DataError(
            f"{path}: schema is {schema!r:.40}, which has no hashes; expected at least {FIRST_SCHEMA}: write the "
            "report again with lit-mem report"
        )
    digest = found.get("digest")
    if not isinstance(digest, str) or len(digest) != len("0" * 64):
        raise DataError(f"{path}: digest is {digest!r:.80}; expected 64 hexadecimal digits")
    _check_files(found, "documents", path)
    _check_files(found, "files", path)
    return found


def _check_names(text: str, path: Path) -> None:
    """Reject an object with a repeated key: one reader would take the first value, another the last."""

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise DataError(f"{path}: an object has a repeated key; expected each key once")
        return found

    json.loads(text, object_pairs_hook=once)


def _check_files(found: Mapping[str, Any], name: str, path: Path) -> None:
    files = found.get(name)
    expected = "a list of of, path, bytes and sha256" if name == "files" else "a list of path, bytes and sha256"
    if not isinstance(files, list) or len(files) > _MOST:
        raise DataError(f"{path}: {name} is {files!r:.80}; expected {expected}")
    for one in files:
        fits = isinstance(one, dict) and (name == "documents" or one.get("of") in ("run", "adapter"))
        if not fits or not is_hashed({key: value for key, value in one.items() if name == "documents" or key != "of"}):
            raise DataError(f"{path}: {name} has {one!r:.80}; expected {expected}")


def _checked(report: Path, folder: Path, one: Mapping[str, Any]) -> Checked:
    path = _within(report, folder, one["path"])
    if not path.is_file():
        return Checked(one["path"], "missing")
    same = path.stat().st_size == one["bytes"] and sha256_of(path) == one["sha256"]
    return Checked(one["path"], "same" if same else "changed")


def _within(report: Path, folder: Path, name: str) -> Path:
    """A path below a folder, wherever links lead.

    Raises:
        DataError: the path leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    plain = bool(parts) and "\0" not in name and "\\" not in name and not name.startswith("/") and ".." not in parts
    try:
        if plain and (folder / name).resolve().is_relative_to(folder.resolve()):
            return folder / name
    except (OSError, RuntimeError):  # a link that leads to itself
        pass
    raise DataError(
        f"{report}: found the path {name!r:.80}, which leads out of {folder}; expected paths below that folder"
    )
