"""Group examples by the values of a column, and name the groups so that every logger accepts the names."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

Value = str | float | tuple[str, ...] | None
"""An example's value in a column: a string, a number, several strings, or nothing."""

_LONGEST_TEXT: Final = 80
_LONGEST_NAME: Final = 40
_NUMBER: Final = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # 02139 is a code, not a number
_SIGNS: Final = {"<=": " le ", ">=": " ge ", "≤": " le ", "≥": " ge ", "<": " lt ", ">": " gt ", "+": " plus "}


def shortened(value: Value) -> Value:
    """The value with long strings truncated and marked, so that distinct ones stay distinct.

    >>> shortened("F"), shortened(50.0)
    ('F', 50.0)
    """
    if isinstance(value, tuple):
        return tuple(map(_shortened, value))
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 10]}… {_digest(text, 8)}"


def has_groups(values: Sequence[Value], most: int) -> bool:
    """Whether a column is useful for groups: it has at least two groups, and is neither an identifier nor free text.

    Args:
        values: (N,) each example's value in the column.
        most: a string column with more distinct values than this counts as free text.

    Returns:
        False for a column in which each example has its own value, unless some are fractions: measurements are
        distinct as well.

    >>> has_groups(["F", "M", "F"], 12), has_groups(["a-1", "a-2", "a-3"], 12), has_groups(["F", "F", None], 12)
    (True, False, False)
    """
    typed = [_typed(value) for value in values]
    numbers = [value for value in typed if isinstance(value, float)]
    texts = [text for value in typed if not isinstance(value, float) for text in _texts(value)]
    distinct = len(set(numbers)) + len(set(texts))
    identifies = distinct == len(numbers) + len(texts) and all(number.is_integer() for number in numbers)
    return distinct > 1 and len(set(texts)) <= most and not identifies


def groups_of(values: Sequence[Value], bins: int, most: int) -> list[tuple[str, ...]]:
    """The groups that each example belongs to, from its value in one column.

    Each string is a group, several strings put an example into several groups, and numbers (also strings that spell
    one) are binned as in `number_labels`.

    Args:
        values: (N,) each example's value in the column.
        bins: number of groups for numbers, at least 1.
        most: numbers with at most this many distinct values are not binned.

    Returns:
        For each example the labels of its groups, each once; empty for one without a value.

    >>> groups_of(["F", ("M", "F"), None, 3.0], bins=4, most=12)
    [('F',), ('M', 'F'), (), ('3',)]
    """
    typed = [_typed(value) for value in values]
    labels = iter(number_labels([value for value in typed if isinstance(value, float)], bins, most))
    return [(next(labels),) if isinstance(value, float) else _texts(value) for value in typed]


def number_labels(values: Sequence[float], bins: int, most: int) -> list[str]:
    """The label of each number's group: the number itself, or the lowest and the highest number of its group.

    Groups are split at quantiles, between distinct numbers only, so their sizes differ if numbers are tied.

    Args:
        values: (N,) none of them NaN.
        bins: maximum number of groups, at least 1.
        most: with at most this many distinct numbers, each is its own group.

    Returns:
        (N,) labels, distinct between groups.

    >>> number_labels([1, 5, 5, 9, 30, 31], bins=2, most=2)
    ['1-5', '1-5', '1-5', '9-31', '9-31', '9-31']
    """
    if not values:
        return []
    ordered = sorted(values)
    if len(set(values)) <= most:
        edges = sorted(set(values))
    else:
        edges = sorted({ordered[math.ceil(k * len(ordered) / bins) - 1] for k in range(1, bins + 1)})
    # Group i holds values above edge i - 1 and at most edge i.
    lowest = [ordered[0], *(ordered[bisect_right(ordered, edge)] for edge in edges[:-1])]
    written = _written({*lowest, *edges})
    labels = [_range(written[low], written[high]) for low, high in zip(lowest, edges, strict=True)]
    return [labels[bisect_left(edges, value)] for value in values]


def safe_names(values: Iterable[str], reserved: Callable[[str], bool] = lambda _: False) -> dict[str, str]:
    """For each string a name made of letters, digits, "_", "-" and "." alone: one level of a logged name.

    A string that is already such a name keeps it. If several would get the same name, those that were changed get a
    suffix derived from the string, so that names are unique.

    Args:
        values: any strings.
        reserved: whether a name has another meaning where it will be used; such a name gets a suffix too.

    Returns:
        Name by string, unique; never empty, "." or "..".

    >>> safe_names(["F", "not known", "<18", "65+"])
    {'F': 'F', 'not known': 'not_known', '<18': 'lt_18', '65+': '65_plus'}
    """
    plain = {value: _plain(value) for value in values}
    wanted = Counter(plain.values())
    names = {
        value: name for value, name in plain.items() if not reserved(name) and (value == name or wanted[name] == 1)
    }
    used = set(names.values())
    for value in sorted(plain.keys() - names.keys()):
        marked = (f"{plain[value]}_{_digest(f'{attempt}{value}', 6)}" for attempt in itertools.count())
        names[value] = next(name for name in marked if name not in used)
        used.add(names[value])
    return {value: names[value] for value in plain}


def _typed(value: Value) -> str | float | tuple[str, ...] | None:
    """The value, with strings that spell a number converted, and empty values as None."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, str | tuple):
        return value or None
    return None if value is None or math.isnan(value) else float(value)


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The strings in a value, each once."""
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value or ()))


def _written(numbers: set[float]) -> dict[float, str]:
    """Each number with the fewest digits that keep them distinct, but at least four."""
    written: dict[float, str] = {}
    for digits in range(4, 18):
        written = {x: str(int(x)) if _is_count(x) else f"{x:.{digits}g}" for x in numbers}
        if len(set(written.values())) == len(numbers):
            break
    return written


def _is_count(x: float) -> bool:
    return float(x).is_integer() and abs(x) < 1e15


def _range(low: str, high: str) -> str:
    if low == high:
        return low
    return f"{low} to {high}" if "-" in low + high else f"{low}-{high}"


def _plain(text: str) -> str:
    """Readable and safe, but not unique."""
    name = unicodedata.normalize("NFKC", text)
    for sign, word in _SIGNS.items():
        name = name.replace(sign, word)
    name = re.sub(r"[^\w.-]+", "_", name.strip())[:_LONGEST_NAME]
    return name.strip("_.") or "_"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
