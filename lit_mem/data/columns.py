"""Column statistics without values: kinds, empty rows, distinct values, lengths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from lit_mem.data.sources.fields import is_index
from lit_mem.data.sources.forms import LOOKED_AT, chat_of
from lit_mem.data.sources.table import Table
from lit_mem.data.span_forms import are_marks
from lit_mem.functional.words import has_no_spaces, plain_words

_MOSTLY: Final = 0.9
_NUMERAL: Final = re.compile(r"\s*[-+]?\d+(?:[.,]\d+)?\s*")


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts, in words or tokens.

    Attributes:
        median: the median.
        high: the 95th percentile.
        longest: the maximum.
    """

    median: int
    high: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths:
        """Statistics of (N,) lengths, N at least 1."""
        ordered = sorted(lengths)
        return cls(ordered[(len(ordered) - 1) // 2], ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1])


@dataclass(frozen=True)
class Column:
    """Statistics of a column.

    Attributes:
        name: name of the column.
        kind: "text", "number", "true/false", "spans", "conversations", "list", "object", "empty", "mixed", or the name
            of another type. Numerals in a csv file are numbers.
        empty: rows without a value: absent, null, NaN, or only white space.
        distinct: number of distinct values; 0 if it holds neither texts nor numbers.
        words: lengths of texts; None if it holds no texts.
        form: form of conversations, such as "conversations, lists of {role, content}"; "" for other kinds.
    """

    name: str
    kind: str
    empty: int
    distinct: int = 0
    words: Lengths | None = None
    form: str = ""


def columns_of(table: Table) -> list[Column]:
    """Each column of a file, in order, except row numbers written by pandas."""
    return [_column(table, name) for name in table.names if not is_index(name)]


def _column(table: Table, name: str) -> Column:
    if not table.opened(name):
        return Column(name, "files", 0)
    values = table.column(name)
    there = [value for value in values if not _is_empty(value)]
    kind, empty = _kind(there), len(values) - len(there)
    if kind == "conversations":
        return Column(name, kind, empty, form=chat_of([_decoded(value) for value in there[:LOOKED_AT]]) or "")
    if kind not in ("text", "number"):
        return Column(name, kind, empty)
    words = Lengths.of([n_words(value) for value in there]) if kind == "text" else None
    return Column(name, kind, empty, len(set(there)), words)


def n_words(text: str) -> int:
    """Words between white space; in a script without spaces between words, each character.

    >>> n_words("a rash, twice"), n_words("皮疹")
    (3, 2)
    """
    return len(plain_words(text)) if has_no_spaces(text) else len(text.split())


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is Table.ABSENT or (isinstance(value, float) and math.isnan(value))


def _kind(values: Sequence[Any]) -> str:
    """The kind of non-empty values."""
    if not values:
        return "empty"
    if chat_of([_decoded(value) for value in values[:LOOKED_AT]]):
        return "conversations"
    if are_marks(values, LOOKED_AT):
        return "spans"
    kinds = {_type(value) for value in values}
    if kinds == {"text"} and all(_NUMERAL.fullmatch(value) for value in values):
        return "number"
    if len(kinds) > 1 and sum(isinstance(value, str) for value in values) >= _MOSTLY * len(values):
        return "text"  # a few broken rows are reported when they are read
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _type(value: Any) -> str:
    names = {str: "text", bool: "true/false", list: "list", dict: "object"}
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return "number"
    return names.get(type(value), "unreadable" if value is Table.UNREADABLE else type(value).__name__)


def _decoded(value: Any) -> Any:
    """Decode JSON of a list, as in csv files; other values unchanged."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value
