"""Which values of the data may be shown, in metric names, on a console, in plots.

A value is shown if it is short, occurs in many rows, and does not reveal text. Any other value is replaced by its
number, most frequent first: `(value 1)`. A hash would confirm a guessed value. A keyed hash would not, but would change
the metric names in every run, while thresholds and dashboards depend on names. The number is the same for the same
data.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from lit_mem.functional.words import DENSE

LONGEST: Final = 40
"""Maximum characters of a value that is shown."""

_RUN: Final = 25
_WORDS: Final = 5
_SHORTEST_RUN: Final = 4
_DIGIT_COUNTS: Final = 5
_DENSE_COUNTS: Final = 7
_BETWEEN: Final = re.compile(r"[\W_]+")
_DIGIT: Final = re.compile(r"\d")
_ONE: Final = r"-?(0|[1-9]\d{0,3})(\.\d+)?(e[-+]\d+)?"
_FEW_DIGITS: Final = re.compile(rf"{_ONE}((-| to ){_ONE})?")
_RANGE: Final = re.compile(r"(-?[\d.]+(?:e[-+]\d+)?)(?:-| to )(-?[\d.]+(?:e[-+]\d+)?)")
_ESCAPE: Final = re.compile(r'\\(?:u([0-9a-fA-F]{4})|[nrtbf/"\\])')


def revealing(values: Iterable[str], texts: Iterable[str], whole: bool = False) -> set[str]:
    """The values that reveal text: those that share a long run of characters with a text.

    Words are compared, ignoring case and the characters between them. A run is long from 25 letters on, spaces
    included, or from 5 words; a digit counts as 5 letters, so that 5 digits in a row are enough, and a Chinese,
    Japanese or Korean character as 7, so that 4 are. Shorter runs are shared by chance: "adverse event" is a column
    value and occurs in many texts. For a text below 50 letters half of it is enough, but at least 4 letters; a text
    below 4 letters is compared with the value and with each of its words. Time is linear in the characters of the
    texts.

    Args:
        values: short values; in columns of mixed types also as JSON, with escapes.
        texts: texts of the run.
        whole: only match values that contain a whole text.

    Returns:
        Some of `values`.

    >>> sorted(revealing(["F", "fever", "it after the first dose"], ["Mild fever.", "He had it after the first dose."]))
    ['fever', 'it after the first dose']
    >>> revealing(["fever", "Mild fever!"], ["Mild fever."], whole=True)
    {'Mild fever!'}
    """
    forms = defaultdict[str, set[str]](set)
    for value in values:
        for spelled in (value, _unescaped(value)):
            for part in (spelled, *_BETWEEN.split(spelled)):
                form = _form(part)
                if part == spelled or 0 < len(form) < _SHORTEST_RUN:
                    forms[form].add(value)
    longest = max(map(len, forms), default=0)
    runs: dict[int, dict[str, set[str]]] = {}
    in_words = {} if whole else _word_runs(forms)
    found: set[str] = set()
    for text in texts:
        form = _form(text)
        n = len(form)
        found |= forms.get(form, set())
        if in_words:
            for run in in_words.keys() & _word_runs({form: set()}).keys():
                found |= in_words[run]
        length = n if whole else min(_RUN, max(_SHORTEST_RUN, -(-n // 2)))
        if n < _SHORTEST_RUN or length > longest:
            continue
        if length not in runs:
            runs[length] = _runs(forms, length)
        known = runs[length]
        for run in known.keys() & {form[i : i + length] for i in range(n - length + 1)}:
            found |= known[run]
    return found


def shown_as(
    groups: Sequence[Collection[str]],
    hidden: Collection[str],
    fewest: int,
    what: str = "value",
    longest: int | None = LONGEST,
) -> dict[str, str]:
    """The displayed name of each value: itself, or its number if it is long, rare or hidden.

    Args:
        groups: for each row its values.
        hidden: values that reveal text, from `revealing`.
        fewest: a value in fewer rows is replaced by its number, unless it is a number below 10,000, or a range of such
            numbers. A range of larger numbers never is shown: its ends are values of single rows, such as an id or a
            date.
        what: the word before the number.
        longest: a value with more characters is replaced by its number; None: no limit.

    Returns:
        Name by value, unique.

    >>> shown_as([["F"], ["F"], ["M"]], hidden=(), fewest=2)
    {'F': 'F', 'M': '(value 2)'}
    """
    counts = Counter(value for values in groups for value in values)
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    shown = [v for v in ordered if v not in hidden and _common(v, counts[v], fewest)]
    names = {v: v for v in shown if longest is None or len(v) <= longest}
    taken = set(names)
    for number, value in enumerate(ordered, start=1):
        if value not in names:
            name = f"({what} {number})"
            while name in taken:  # a value of the data that looks like a generated name
                name = f"({name})"
            names[value] = name
            taken.add(name)
    return {value: names[value] for value in ordered}


def _common(value: str, count: int, fewest: int) -> bool:
    """Whether a value occurs in many rows, or is a number too short to identify one."""
    if _FEW_DIGITS.fullmatch(value):
        return True
    return count >= fewest and not (_RANGE.fullmatch(value) and fewest > 1)


def _form(text: str) -> str:
    """Its words, with each letter repeated by its weight; for a text without words, its symbols."""
    form = _BETWEEN.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    form = _DIGIT.sub(r"\g<0>" * _DIGIT_COUNTS, form)
    if not form.isascii():
        form = DENSE.sub(r"\g<0>" * _DENSE_COUNTS, form)
    return form or text.strip()


def _unescaped(value: str) -> str:
    """The value before JSON escaping, with a space for a line break."""
    if "\\" not in value:
        return value
    text = _ESCAPE.sub(lambda sign: chr(int(sign[1], 16)) if sign[1] else " ", value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _runs(forms: dict[str, set[str]], length: int) -> dict[str, set[str]]:
    runs = defaultdict[str, set[str]](set)
    for form, values in forms.items():
        for i in range(len(form) - length + 1):
            runs[form[i : i + length]] |= values
    return runs


def _word_runs(forms: dict[str, set[str]]) -> dict[str, set[str]]:
    runs = defaultdict[str, set[str]](set)
    for form, values in forms.items():
        words = form.split(" ")
        for i in range(len(words) - _WORDS + 1):
            runs[" ".join(words[i : i + _WORDS])] |= values
    return runs
