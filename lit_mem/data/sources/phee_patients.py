"""Sex and age of a patient, from the wording of a case report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_FEMALE: Final = frozenset("woman women girl girls female females lady ladies she her hers herself".split())
_MALE: Final = frozenset("man men boy boys male males gentleman gentlemen brother brothers he him his himself".split())
_ONES: Final = "one two three four five six seven eight nine".split()
_TEENS: Final = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS: Final = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_NUMBERS: Final = (
    {word: n for n, word in enumerate([*_ONES, *_TEENS], start=1)}
    | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
    | {f"{ten} {one}": 10 * n + m for n, ten in enumerate(_TENS, start=2) for m, one in enumerate(_ONES, start=1)}
)
_YEARS: Final = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}
_AGE: Final = re.compile(
    r"(?:an? |aged )?(?P<number>[0-9]+(?:\.[0-9]+)?|[a-z]+(?:[ -][a-z]+)??)(?P<half> ?\(1/2\))?"
    r"[ -]*(?P<unit>years?|yrs?|y|months?|weeks?|days?)"
    r"(?:[ -]*(?:old|o|of age)(?: [a-z]+)?)?"
)


def sex_of(sexes: Sequence[str]) -> str:
    """Female or male if all wordings agree.

    >>> sex_of(["woman", "She"]), sex_of(["4 males and 1 female"]), sex_of(["young"])
    ('female', '', '')
    """
    words = set(re.findall(r"[a-z]+", " ".join(sexes).lower()))
    female, male = bool(words & _FEMALE), bool(words & _MALE)
    if female == male or any(word.startswith("trans") for word in words):
        return ""
    return "female" if female else "male"


def age_of(ages: Sequence[str]) -> float | None:
    """Years, if the wordings have one number with a unit and no other number.

    >>> age_of(["8-month-old infant"]), age_of(["sixty-five years old", "elderly"])
    (0.6666666666666666, 65.0)
    >>> age_of(["10-15 years"]), age_of(["44-year-old", "20-year-old"]), age_of(["6"])
    (None, None, None)
    """
    parsed = [(age, _years(age)) for age in ages]
    found = {years for age, years in parsed if years is not None or re.search("[0-9]", age)}
    return found.pop() if len(found) == 1 else None


def _years(age: str) -> float | None:
    match = _AGE.fullmatch(age.lower().strip())
    if match is None:
        return None
    if match["number"][0].isdigit():
        number = float(match["number"])
    else:
        word = match["number"].replace("-", " ")
        if word not in _NUMBERS:
            return None
        number = float(_NUMBERS[word])
    return (number + 0.5 * bool(match["half"])) * _YEARS[match["unit"][0]]
