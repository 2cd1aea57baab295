"""Split text into words in any script: by spaces, or into characters for scripts without spaces.

Chinese, Japanese, Thai, Lao, Khmer, Burmese and some others are written without spaces between words. In these scripts
a character with its marks counts as a word, as in evaluations of Chinese and Japanese: no dictionary is needed, and a
run of characters is as distinctive as a run of words. Korean and Vietnamese have spaces and are split like English.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Final

# Whole blocks of Unicode 17, so that later assignments belong to the script too.
_IDEOGRAPHS: Final = {
    "Han": ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3038, 0x303C), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
            (0xF900, 0xFAFF), (0x16FE0, 0x16FE3), (0x16FE5, 0x16FEF), (0x16FF2, 0x16FFF), (0x20000, 0x3FFFD)),
    "Kana": ((0x3031, 0x3035), (0x3040, 0x3098), (0x309B, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D),
             (0x1AFF0, 0x1B16F), (0x1F200, 0x1F200)),
    "Bopomofo": ((0x02EA, 0x02EB), (0x3100, 0x312F), (0x31A0, 0x31BF)),
    "Yi": ((0xA000, 0xA4CF),),
    "Tangut": ((0x17000, 0x18AFF), (0x18D00, 0x18DFF)),
    "Khitan": ((0x18B00, 0x18CFF),),
    "Nushu": ((0x1B170, 0x1B2FF),),
}  # fmt: skip
_SYLLABLES: Final = {
    "Thai": ((0x0E00, 0x0E7F),),
    "Lao": ((0x0E80, 0x0EFF),),
    "Tibetan": ((0x0F00, 0x0FFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0x116D0, 0x116FF)),
    "Khmer": ((0x1780, 0x17FF), (0x19E0, 0x19FF)),
    "Tai": ((0x1950, 0x19DF), (0x1A20, 0x1AAF), (0xAA80, 0xAADF)),
    "Balinese": ((0x1B00, 0x1B7F),),
    "Javanese": ((0xA980, 0xA9DF),),
    "Ahom": ((0x11700, 0x1174F),),
}
# Punctuation of these scripts, which is not separated by spaces from the words beside it.
_PUNCTUATION: Final = ((0x3001, 0x3003), (0x3008, 0x3020), (0x3030, 0x3030), (0x303D, 0x303F), (0xFF01, 0xFF0F),
                       (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF65))  # fmt: skip
_KANA_MARKS: Final = ((0x302A, 0x302F), (0x3099, 0x309A), (0xFF9E, 0xFF9F), (0x16FE4, 0x16FE4), (0x16FF0, 0x16FF1))
_SELECTORS: Final = ((0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
"""Variation selectors: part of the preceding character, and of emoji."""

Ranges = Iterable[tuple[int, int]]


def _class(ranges: Ranges) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def _points(ranges: Ranges) -> Iterator[int]:
    return (point for first, last in ranges for point in range(first, last + 1))


def _is_mark(point: int) -> bool:
    return unicodedata.category(chr(point)) in ("Mn", "Mc")


_OF_SYLLABLES: Final = [point for ranges in _SYLLABLES.values() for point in _points(ranges)]
_MARKS: Final = _class([*_SELECTORS, *_KANA_MARKS]) + "".join(chr(p) for p in _OF_SYLLABLES if _is_mark(p))
# Consecutive digits form one word.
_LETTERS: Final = _class(one for ranges in _IDEOGRAPHS.values() for one in ranges) + "".join(
    chr(p) for p in _OF_SYLLABLES if not _is_mark(p) and unicodedata.category(chr(p)) != "Nd"
)
_SINGLES: Final = _LETTERS + _class(_PUNCTUATION)
# A fast path for most texts: Latin letters, punctuation and symbols are neither marks nor of such a script.
_OTHER: Final = re.compile("[^\x00-\u02e9\u2000-\u206f\u20a0-\u20cf\u2100-\u2bff]")
_LETTER: Final = re.compile(f"[{_LETTERS}]")
DENSE: Final = re.compile(f"[{_class(one for ranges in _IDEOGRAPHS.values() for one in ranges)}\uac00-\ud7a3]")
"""A character with as much information as several letters: Chinese, Japanese, Korean and some others."""
_SINGLE: Final = re.compile(f"[{_SINGLES}]")
_UNIT: Final = re.compile(f"[{_SINGLES}][{_MARKS}]*|[^{_SINGLES}]+")
_PLAIN: Final = re.compile(r"\w+")
_PLACE: Final = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Split at white space; in a script without spaces, each character with its marks, or punctuation mark.

    >>> words("Fever,  and rash."), words("服用aspirin 60天。")
    (['Fever,', 'and', 'rash.'], ['服', '用', 'aspirin', '60', '天', '。'])
    """
    return _single(text.split(), text)


def plain_words(text: str) -> list[str]:
    """Runs of letters, digits and underscores with their marks; in a script without spaces, each character.

    >>> plain_words("Fever, and rash_2."), plain_words("服用aspirin 60天。")
    (['Fever', 'and', 'rash_2'], ['服', '用', 'aspirin', '60', '天'])
    """
    pattern = _marked()[1] if _has_marks(text) else _PLAIN
    return _single(pattern.findall(text), text)


def word_places(text: str) -> list[re.Match[str]]:
    """Matches of words of letters and digits, without underscores; in a script without spaces, of each character.

    >>> [match.span() for match in word_places("Fever, 皮疹")]
    [(0, 5), (7, 8), (8, 9)]
    """
    if not (_has_marks(text) or has_no_spaces(text)):
        return list(_PLACE.finditer(text))
    # The block of a script has symbols besides letters, such as the sign of Thailand's currency.
    return [place for place in _marked()[2].finditer(text) if _PLACE.search(place.group())]


def has_no_spaces(text: str) -> bool:
    """Whether any of it is in a script without spaces between words."""
    return _is_other(text) and _LETTER.search(text) is not None


def scripts_without_spaces(text: str) -> set[str]:
    """Names of the scripts without spaces between words that occur in a text.

    >>> sorted(scripts_without_spaces("皮疹 and ไข้"))
    ['Han', 'Thai']
    """
    if not _is_other(text):
        return set()
    points = [ord(found) for found in set(_LETTER.findall(text))]
    tables = _IDEOGRAPHS | _SYLLABLES
    return {name for name, ranges in tables.items() if any(a <= point <= b for a, b in ranges for point in points)}


def _single(found: list[str], text: str) -> list[str]:
    if not _is_other(text) or _SINGLE.search(text) is None:
        return found
    return [unit for word in found for unit in _UNIT.findall(word)]


def _has_marks(text: str) -> bool:
    return _is_other(text) and _marked()[0].search(text) is not None


def _is_other(text: str) -> bool:
    # `isascii` is constant-time.
    return not text.isascii() and _OTHER.search(text) is not None


@cache
def _marked() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    r"""Any mark; plain words with marks; places with marks.

    Python's own `\w` has no marks: a Hindi word would end before its first vowel sign. Patterns with marks take ten
    times as long, so texts without marks use the others.
    """
    marks = "".join(chr(p) for p in _points([(0x300, 0xFDFF), (0xFE20, 0x1FFFF)]) if _is_mark(p))
    letter = rf"(?![{_SINGLES}])[^\W_]"
    place = re.compile(rf"[{_LETTERS}][{_MARKS}]*|{letter}(?:{letter}|[{marks}])*")
    return re.compile(f"[{marks}]"), re.compile(rf"\w[\w{marks}]*"), place
