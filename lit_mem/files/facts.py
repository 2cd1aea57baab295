"""Facts about a run, `facts.json`: start time, versions, counts, parameters, and digests of the inputs.

Written once, when a run first measures. The report's annex reads it; runs of earlier versions have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.files import atomic
from lit_mem.files.hashes import Hashed
from lit_mem.files.untrusted import read_json

FILE: Final = "facts.json"
"""Its name in a run's folder."""
SCHEMA: Final = 1
"""Version of the format."""

_MOST: Final = 2**53
_LONGEST: Final = 500


@dataclass(frozen=True)
class SetFacts:
    """A whole set of texts, before any subset is taken for scoring.

    Attributes:
        rows: number of texts; None: unknown.
        tokens: number of tokens, prompts included; None: unknown.
        persons: number of persons or documents; None: rows are not grouped.
        digest: keyed digest of all texts (`lit_mem.privacy.corpus.salted_digest`); None: unknown.
    """

    rows: int | None = None
    tokens: int | None = None
    persons: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Facts:
    """Facts about a run.

    Attributes:
        started: start time in UTC, ISO 8601.
        versions: of packages, by name.
        base: id or path of the base model; "" if unknown.
        revision: revision of the base on the hub.
        fingerprint: `lit_mem.models.fingerprint.fingerprint` of the base; {}: unknown.
        trained: number of trained parameters, also of an audited adapter; None: unknown.
        parameters: number of parameters of the whole model; None: unknown.
        members: the training set.
        heldout: the held-out set.
        digest_of: what the digests of the sets are computed from, "texts" or "tokens".
        digest_salt: salt of these digests, hexadecimal; "" if there are none.
        digest_key: digest of the key used for them; "" if there are none.
        adapter: files of the audited adapter, relative to its folder.
    """

    started: str
    versions: Mapping[str, str] = field(default_factory=dict)
    base: str = ""
    revision: str | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    trained: int | None = None
    parameters: int | None = None
    members: SetFacts = field(default_factory=SetFacts)
    heldout: SetFacts = field(default_factory=SetFacts)
    digest_of: str = "texts"
    digest_salt: str = ""
    digest_key: str = ""
    adapter: Sequence[Hashed] = ()


def now() -> str:
    """The current time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_facts(folder: Path, make: Callable[[], Facts]) -> None:
    """Write the facts of a run into its folder, unless an earlier pass or process of the run wrote them.

    Args:
        folder: the run's folder.
        make: collects the facts; called only if they are written.

    Raises:
        OSError: they cannot be written.
    """
    if not (folder / FILE).exists():
        facts = make()
        content = {"schema": SCHEMA} | asdict(facts) | {"adapter": [one._asdict() for one in facts.adapter]}
        atomic.write_text(folder / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_facts(folder: Path) -> Facts | None:
    """The facts of a run; None if they were not recorded.

    Raises:
        DataError: the file does not have the format of `write_facts`.
        OSError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise DataError(f"{path}: schema is {schema!r:.40}; expected {SCHEMA}, a file written by lit_mem")
    values = {name: _valid(found, name, fits, expected, path) for name, (fits, expected) in _FORMS.items()}
    values |= {name: SetFacts(**_of_set(found, name, path)) for name in ("members", "heldout")}
    files = found.get("adapter", [])
    if not isinstance(files, list) or not all(map(is_hashed, files)):
        raise DataError(f"{path}: adapter is {files!r:.80}; expected a list of path, bytes and sha256")
    return Facts(**values, adapter=[Hashed(**one) for one in files])


def is_hashed(value: Any) -> bool:
    """Whether a JSON value has the form of a `Hashed`."""
    return (
        isinstance(value, dict)
        and sorted(value) == ["bytes", "path", "sha256"]
        and _is_text(value["path"])
        and _is_count(value["bytes"])
        and isinstance(value["sha256"], str)
        and len(value["sha256"]) == 64
        and set(value["sha256"]) <= set("0123456789abcdef")
    )


def _of_set(found: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    one = found.get(name)
    if not isinstance(one, dict):
        raise DataError(f"{path}: {name} is {one!r:.40}; expected rows, tokens, persons and digest")
    within = f"{name}."
    counts = {key: _valid(one, key, _or_none(_is_count), _COUNT, path, within) for key in ("rows", "tokens", "persons")}
    return counts | {"digest": _valid(one, "digest", _or_none(_is_text), "a text, or null", path, within)}


def _valid(
    found: Mapping[str, Any], name: str, fits: Callable[[Any], bool], expected: str, path: Path, within: str = ""
) -> Any:
    value = found.get(name)
    if name not in found or not fits(value):
        raise DataError(f"{path}: {within}{name} is {value!r:.40}; expected {expected}")
    return value


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_text, value.values()))


_COUNT: Final = "a whole number of 0 or more, or null"
_FORMS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "started": (_is_text, "a time"),
    "versions": (_are_texts, "texts by name"),
    "base": (lambda value: isinstance(value, str), "a text"),
    "revision": (_or_none(_is_text), "a text, or null"),
    "fingerprint": (_are_texts, "texts by name"),
    "trained": (_or_none(_is_count), _COUNT),
    "parameters": (_or_none(_is_count), _COUNT),
    "digest_of": (lambda value: value in ("texts", "tokens"), "texts or tokens"),
    "digest_salt": (_is_text, "a text"),
    "digest_key": (_is_text, "a text"),
}
