"""Convert span annotations in common formats to type, start and end.

| format | a row's value |
| --- | --- |
| lit_mem | `[{"type": "name", "start": 0, "end": 5}]` |
| doccano | `[[0, 5, "name"]]`, or `[{"label": "name", "start_offset": 0, "end_offset": 5}]` |
| spaCy | `{"entities": [[0, 5, "name"]]}`, or `[{"label": "name", "start": 0, "end": 5}]` |
| Presidio | `[{"entity_type": "name", "start": 0, "end": 5, "score": 0.9}]` |
| transformers' pipeline | `[{"entity_group": "name", "start": 0, "end": 5, "score": 0.9}]` |
| Label Studio (JSON_MIN) | `[{"labels": ["name"], "start": 0, "end": 5}]` |
| columns of lists | `{"type": ["name"], "start": [0], "end": [5]}` |

Each also as JSON, as in csv files. Offsets count characters from 0; the end is exclusive.
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
"""The type of spans between `[**` and `**]`."""

_TYPES: Final = ("type", "label", "entity_type", "entity_group", "entity", "labels")
_STARTS: Final = ("start", "start_offset")
_ENDS: Final = ("end", "end_offset")
_NAMES: Final = (_TYPES, _STARTS, _ENDS)
_LISTS: Final = ("entities", "ents", "spans")
"""Keys of the list of spans in an object."""
_HIDDEN: Final = re.compile(r"\[\*\*.*?\*\*\]", re.DOTALL)
_FORM: Final = (
    "a list of {type, start, end} or another format of lit_mem.data.span_forms (data.spans_column null ignores the "
    "column)"
)


def marks_of(value: Any, length: int, where: str) -> Iterator[Mark]:
    """Each span of a row, in any supported format.

    Args:
        value: value of the row; None and an empty string have no spans.
        length: characters of the completion.
        where: prefix of messages, which quote no text.

    Raises:
        DataError: the format is unknown, or a span is outside the completion.

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
                what = "an empty string" if isinstance(kind, str) else _kind(kind)
                raise DataError(f"{at}: found {what} as its type, expected a non-empty string")
        start, end = _whole(start, at, "start"), _whole(end, at, "end")
        if not 0 <= start < end <= length:
            raise DataError(
                f"{at}: found start {start} and end {end}, expected 0 <= start < end <= {length}, "
                "the characters of the completion"
            )
        yield from ((kind, start, end) for kind in kinds)


def are_marks(values: Iterable[Any], most: int = 20) -> bool:
    """Whether values look like spans: lists in a known format, at least one of which is not empty.

    Args:
        values: values of a column, without missing ones.
        most: number of non-empty values to inspect.

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
    """Spans between `[**` and `**]`, as in MIMIC's notes, including these marks.

    >>> list(deidentified("Seen by [**Last Name**] on [**2151-7-16**]."))
    [('deidentified', 8, 23), ('deidentified', 27, 42)]
    """
    yield from ((DEIDENTIFIED, match.start(), match.end()) for match in _HIDDEN.finditer(text))


def _decoded(value: Any) -> Any:
    """Decode JSON, as in csv files and in columns of mixed formats."""
    if isinstance(value, str):
        try:
            return json.loads(value.strip() or "null")
        except (ValueError, RecursionError):
            pass
    return value


def _listed(value: Any) -> Sequence[Any] | None:
    """The spans of a row, each in its own format; None if the format is unknown."""
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
    """Types, start and end of one span, unchecked; None if the format is unknown."""
    if isinstance(span, list | tuple):
        return ([span[2]], span[0], span[1]) if len(span) >= 3 else None
    if not isinstance(span, Mapping):
        return None
    kind, start, end = _columns(span)
    return (list(kind) if isinstance(kind, list | tuple) and kind else [kind], start, end)


def _columns(span: Mapping[str, Any]) -> list[Any]:
    """Type, start and end under any known name; None if missing.

    If rows have several formats, Arrow gives each span the names of all, with nulls.
    """
    return [next((span[name] for name in names if span.get(name) is not None), None) for names in _NAMES]


def _is_whole(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _whole(value: Any, where: str, bound: str) -> int:
    """An integer, also from a float, since a column with one broken row may store all numbers as floats."""
    if _is_whole(value):
        return int(value)
    found = str(value) if isinstance(value, float) else _kind(value)
    raise DataError(f"{where}: found {found} as its {bound}, expected an integer")


def _kind(value: Any) -> str:
    """The type of a value, for a message that must not show it."""
    return {"NoneType": "nothing", "str": "a string", "dict": "an object"}.get(
        type(value).__name__, type(value).__name__
    )
