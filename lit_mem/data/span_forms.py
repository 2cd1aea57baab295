"""Marked pieces of a text in the forms that programs write, as type, start and end.

| form | a row's value |
| --- | --- |
| the package's own | `[{"type": "name", "start": 0, "end": 5}]` |
| doccano | `[[0, 5, "name"]]`, or `[{"label": "name", "start_offset": 0, "end_offset": 5}]` |
| spaCy | `{"entities": [[0, 5, "name"]]}`, or `[{"label": "name", "start": 0, "end": 5}]` |
| Presidio | `[{"entity_type": "name", "start": 0, "end": 5, "score": 0.9}]` |
| transformers' pipeline | `[{"entity_group": "name", "start": 0, "end": 5, "score": 0.9}]` |
| Label Studio (JSON_MIN) | `[{"labels": ["name"], "start": 0, "end": 5}]` |
| columns of lists | `{"type": ["name"], "start": [0], "end": [5]}` |

Each also as JSON, as a csv file has it. Offsets count characters from 0, the end is the first one after the piece.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lit_mem.errors import DataError

Mark = tuple[str, int, int]
"""Type, start and end, in characters of the completion."""

DEIDENTIFIED: Final = "deidentified"
"""The type of what `[**` and `**]` enclose."""

_TYPES: Final = ("type", "label", "entity_type", "entity_group", "entity", "labels")
_STARTS: Final = ("start", "start_offset")
_ENDS: Final = ("end", "end_offset")
_NAMES: Final = (_TYPES, _STARTS, _ENDS)
_LISTS: Final = ("entities", "ents", "spans")
"""Keys of an object that holds nothing but a list of spans, or a list beside others."""
_HIDDEN: Final = re.compile(r"\[\*\*.*?\*\*\]", re.DOTALL)
_FORM: Final = (
    "a list of {type, start, end} or another form of lit_mem.data.span_forms (data.spans_column: null leaves the "
    "column unread)"
)


def marks_of(value: Any, length: int, where: str) -> Iterator[Mark]:
    """Each marked piece of a row, whatever the form.

    Args:
        value: of the row; None and an empty text mark nothing.
        length: characters of the completion.
        where: starts messages, which quote no text.

    Raises:
        DataError: the value is of no known form, or a piece is not in the completion.

    >>> list(marks_of([[0, 5, "name"]], 9, "")), list(marks_of({"entities": [[0, 5, "name"]]}, 9, ""))
    ([('name', 0, 5)], [('name', 0, 5)])
    """
    value = _decoded(value)
    if value is None:
        return
    spans = _listed(value)
    if spans is None:
        raise DataError(f"{where}: found {_kind(value)}, expected {_FORM}")
    for number, span in enumerate(spans, start=1):
        at = f"{where}, span {number}"
        found = _parts(span)
        if found is None:
            raise DataError(f"{at}: found {_kind(span)}, expected {_FORM}")
        kinds, start, end = found
        for kind in kinds:
            if not isinstance(kind, str) or not kind.strip():
                what = "an empty text" if isinstance(kind, str) else _kind(kind)
                raise DataError(f"{at}: found {what} as its type, expected a text that is not empty")
        start, end = _whole(start, at, "start"), _whole(end, at, "end")
        if not 0 <= start < end <= length:
            raise DataError(
                f"{at}: found start {start} and end {end}, expected 0 <= start < end <= {length}, "
                "the characters of the completion"
            )
        yield from ((kind, start, end) for kind in kinds)


def are_marks(values: Iterable[Any], most: int = 20) -> bool:
    """Whether values look like marked pieces: lists of a known form, at least one of which is not empty.

    Args:
        values: of a column, without those that are missing.
        most: so many that are not empty are looked at.

    >>> are_marks([[], [{"label": "name", "start_offset": 0, "end_offset": 5}]]), are_marks([[1, 2]]), are_marks([[]])
    (True, False, False)
    """
    seen = 0
    for value in values:
        spans = _listed(_decoded(value))
        if spans is None or not all(map(_is_form, spans)):
            return False
        seen += bool(spans)
        if seen >= most:
            break
    return seen > 0


def _is_form(span: Any) -> bool:
    found = _parts(span)
    if found is None:
        return False
    kinds, start, end = found
    return all(isinstance(kind, str) for kind in kinds) and _is_whole(start) and _is_whole(end)


def deidentified(text: str) -> Iterator[Mark]:
    """What `[**` and `**]` enclose, as in MIMIC's notes, with these marks.

    >>> list(deidentified("Seen by [**Last Name**] on [**2151-7-16**]."))
    [('deidentified', 8, 23), ('deidentified', 27, 42)]
    """
    yield from ((DEIDENTIFIED, match.start(), match.end()) for match in _HIDDEN.finditer(text))


def _decoded(value: Any) -> Any:
    """The value of JSON, as a csv file has it, and a column whose rows are not all of one form."""
    if isinstance(value, str):
        try:
            return json.loads(value.strip() or "null")
        except (ValueError, RecursionError):
            pass
    return value


def _listed(value: Any) -> Sequence[Any] | None:
    """The spans of a row one by one, each of its own form; None where there are none of a known form."""
    if isinstance(value, Mapping):
        named = next((key for key in _LISTS if isinstance(value.get(key), list | tuple)), None)
        if named is not None:
            return list(value[named])
        columns = _columns(value)
        if not all(isinstance(column, list | tuple) for column in columns) or len({len(one) for one in columns}) > 1:
            return None
        return [{"type": kind, "start": start, "end": end} for kind, start, end in zip(*columns, strict=True)]
    return value if isinstance(value, list | tuple) else None


def _parts(span: Any) -> tuple[list[Any], Any, Any] | None:
    """Types, start and end of one span, unchecked; None where it is of no known form."""
    if isinstance(span, list | tuple):
        return ([span[2]], span[0], span[1]) if len(span) >= 3 else None
    if not isinstance(span, Mapping):
        return None
    kind, start, end = _columns(span)
    return (list(kind) if isinstance(kind, list | tuple) and kind else [kind], start, end)


def _columns(span: Mapping[str, Any]) -> list[Any]:
    """Type, start and end by whichever names they go; None where one is not there.

    Where rows are of several forms, Arrow gives each span the names of all, with nulls.
    """
    return [next((span[name] for name in names if span.get(name) is not None), None) for names in _NAMES]


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _whole(value: Any, where: str, bound: str) -> int:
    """A whole number; a float too, for a column with one broken row may hold all its numbers as floats."""
    if _is_whole(value):
        return int(value)
    found = str(value) if isinstance(value, float) else _kind(value)
    raise DataError(f"{where}: found {found} as its {bound}, expected a whole number")


def _kind(value: Any) -> str:
    """What a value is, for a message that must not show it."""
    return {"NoneType": "nothing", "str": "a text", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
