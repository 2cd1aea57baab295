"""Groups of examples by what the data says of them, and names for these groups that every logger takes."""

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
"""What an example has in a column: a text, a number, several texts, or nothing."""

_LONGEST_TEXT: Final = 80
_LONGEST_NAME: Final = 40
_NUMBER: Final = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")  # 02139 is a code, not a number
_SIGNS: Final = {"<=": " le ", ">=": " ge ", "≤": " le ", "≥": " ge ", "<": " lt ", ">": " gt ", "+": " plus "}


def shortened(value: Value) -> Value:
    """The value with long texts cut and marked, so that two of them still differ.

    >>> shortened("F"), shortened(50.0)
    ('F', 50.0)
    """
    if isinstance(value, tuple):
        return tuple(map(_shortened, value))
    return _shortened(value) if isinstance(value, str) else value


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 10]}… {_digest(text, 8)}"


def tells_groups(values: Sequence[Value], most: int) -> bool:
    """Whether a column is worth groups: it tells at least two, and neither identifies examples nor is free text.

    Args:
        values: (N,) what each example has in the column.
        most: texts of more distinct values than this are taken for free text.

    Returns:
        False for a column in which each example has its own value, unless some are fractions: a measurement has its
        own value as well.

    >>> tells_groups(["F", "M", "F"], 12), tells_groups(["a-1", "a-2", "a-3"], 12), tells_groups(["F", "F", None], 12)
    (True, False, False)
    """
    typed = [_typed(value) for value in values]
    numbers = [value for value in typed if isinstance(value, float)]
    texts = [text for value in typed if not isinstance(value, float) for text in _texts(value)]
    distinct = len(set(numbers)) + len(set(texts))
    identifies = distinct == len(numbers) + len(texts) and all(number.is_integer() for number in numbers)
    return distinct > 1 and len(set(texts)) <= most and not identifies


def groups_of(values: Sequence[Value], bins: int, most: int) -> list[tuple[str, ...]]:
    """The groups that each example belongs to, by what it has in one column.

    Texts are groups of their own, several texts put an example into several groups, and numbers (texts that spell
    one too) are binned as in `number_labels`.

    Args:
        values: (N,) what each example has in the column.
        bins: how many groups numbers are cut into, at least 1.
        most: numbers of at most this many distinct values are not cut.

    Returns:
        For each example the labels of its groups, each once; none for one without a value.

    >>> groups_of(["F", ("M", "F"), None, 3.0], bins=4, most=12)
    [('F',), ('M', 'F'), (), ('3',)]
    """
    typed = [_typed(value) for value in values]
    labels = iter(number_labels([value for value in typed if isinstance(value, float)], bins, most))
    return [(next(labels),) if isinstance(value, float) else _texts(value) for value in typed]


def number_labels(values: Sequence[float], bins: int, most: int) -> list[str]:
    """The label of each number's group: the number itself, or the lowest and the highest number of its group.

    Groups are cut at quantiles, between distinct numbers only, so that their sizes differ where numbers are tied.

    Args:
        values: (N,) none of them NaN.
        bins: how many groups at most, at least 1.
        most: where there are at most this many distinct numbers, each is a group.

    Returns:
        (N,) labels; those of different groups differ.

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
    # Group i holds what is above edge i - 1 and at most edge i.
    lowest = [ordered[0], *(ordered[bisect_right(ordered, edge)] for edge in edges[:-1])]
    written = _written({*lowest, *edges})
    labels = [_range(written[low], written[high]) for low, high in zip(lowest, edges, strict=True)]
    return [labels[bisect_left(edges, value)] for value in values]


def safe_names(values: Iterable[str], refused: Callable[[str], bool] = lambda _: False) -> dict[str, str]:
    """For each text a name made of letters, digits, "_", "-" and "." alone: one level of a logged name.

    A text that is such a name keeps it. Of several that would get one name, those that differ from it get a mark that
    depends on the text, so that no two share a name.

    Args:
        values: any texts.
        refused: says of a name that it means something else where it will stand; it gets a mark as well.

    Returns:
        Name by text; no name is empty, "." or "..", and no two are the same.

    >>> safe_names(["F", "not known", "<18", "65+"])
    {'F': 'F', 'not known': 'not_known', '<18': 'lt_18', '65+': '65_plus'}
    """
    plain = {value: _plain(value) for value in values}
    wanted = Counter(plain.values())
    names = {value: name for value, name in plain.items() if not refused(name) and (value == name or wanted[name] == 1)}
    used = set(names.values())
    for value in sorted(plain.keys() - names.keys()):
        marked = (f"{plain[value]}_{_digest(f'{attempt}{value}', 6)}" for attempt in itertools.count())
        names[value] = next(name for name in marked if name not in used)
        used.add(names[value])
    return {value: names[value] for value in plain}


def _typed(value: Value) -> str | float | tuple[str, ...] | None:
    """The value with texts that spell a number as that number, and what says nothing as None."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, str | tuple):
        return value or None
    return None if value is None or math.isnan(value) else float(value)


def _texts(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The texts in a value, each once."""
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value or ()))


def _written(numbers: set[float]) -> dict[float, str]:
    """Each number with as few digits as tell them apart, but at least four."""
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
    """Readable and safe, but not one of a kind."""
    name = unicodedata.normalize("NFKC", text)
    for sign, word in _SIGNS.items():
        name = name.replace(sign, word)
    name = re.sub(r"[^\w.-]+", "_", name.strip())[:_LONGEST_NAME]
    return name.strip("_.") or "_"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
