"""What a run is of, `facts.json`: when it started, versions, counts, parameters, and digests of what went in.

Written once, where a run first measures. A report takes its annex from it; runs of earlier versions have none.
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
"""Of the format."""

_MOST: Final = 2**53
_LONGEST: Final = 500


@dataclass(frozen=True)
class SetFacts:
    """A set of texts, all of it, before any subset is scored.

    Attributes:
        rows: how many texts; None: not known.
        tokens: of all of them, prompts included; None: not known.
        persons: how many persons or documents they are of; None: no two rows are known to be of one.
        digest: keyed digest of all texts (`lit_mem.privacy.corpus.salted_digest`); None: not known.
    """

    rows: int | None = None
    tokens: int | None = None
    persons: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Facts:
    """What a run is of.

    Attributes:
        started: when, in UTC, as ISO 8601 has it.
        versions: of packages, by name.
        base: id or path of the base model; "" where not known.
        revision: of the base on the hub.
        fingerprint: `lit_mem.models.fingerprint.fingerprint` of the base; {}: not known.
        trained: parameters that are trained, or were, in an audit of an adapter; None: not known.
        parameters: of the whole model; None: not known.
        members: the training set.
        heldout: what it is compared with.
        digest_of: what the digests of the sets are of, "texts" or "tokens".
        digest_salt: hexadecimal digits that went into these digests; "" without them.
        digest_key: which key they have, by a digest of it; "" without them.
        adapter: files of the adapter that is audited, below its folder.
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
    """The time in UTC, to the second, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_facts(folder: Path, make: Callable[[], Facts]) -> None:
    """Write the facts of a run into its folder, unless an earlier pass or process of the run has.

    Args:
        folder: of the run.
        make: finds the facts; called only where they are written.

    Raises:
        OSError: they cannot be written.
    """
    if not (folder / FILE).exists():
        facts = make()
        content = {"schema": SCHEMA} | asdict(facts) | {"adapter": [one._asdict() for one in facts.adapter]}
        atomic.write_text(folder / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_facts(folder: Path) -> Facts | None:
    """The facts of a run; None where they were not recorded.

    Raises:
        DataError: the file is not as `write_facts` has it.
        OSError: it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise DataError(f"{path}: schema is {schema!r:.40}; expected {SCHEMA}, a file as lit_mem writes it")
    values = {name: _valid(found, name, fits, expected, path) for name, (fits, expected) in _FORMS.items()}
    values |= {name: SetFacts(**_of_set(found, name, path)) for name in ("members", "heldout")}
    files = found.get("adapter", [])
    if not isinstance(files, list) or not all(map(is_hashed, files)):
        raise DataError(f"{path}: adapter is {files!r:.80}; expected a list of path, bytes and sha256")
    return Facts(**values, adapter=[Hashed(**one) for one in files])


def is_hashed(value: Any) -> bool:
    """Whether a value has the form of a `Hashed` as JSON has it."""
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
