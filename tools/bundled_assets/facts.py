"""The facts of one synthetic text: who, when, which drug, which effect."""

import functools
import math
from dataclasses import dataclass, field
from typing import Final, Literal

from lit_mem.data.canaries import names
from tools.bundled_assets import words
from tools.bundled_assets.grammar import Dice

AGES: Final = range(18, 92)
YEARS: Final = range(1996, 2025)
RECORDS: Final = range(100_000, 1_000_000)

Style = Literal["case", "pretraining"]
"""Case reports draw from all drugs and effects alike, have one record prefix and two date formats;
pretraining rarely has the starred drugs and effects and that prefix, and has more formats."""

_BY_SEX: Final = {
    "F": {"he": "she", "his": "her", "him": "her", "man": "woman", "male": "female", "mr": "Ms."},
    "M": {"he": "he", "his": "his", "him": "him", "man": "man", "male": "male", "mr": "Mr."},
}
_OTHER_RECORD_PREFIXES: Final = ("CH-", "PV-", "ID ")
RARE_IN_PRETRAINING: Final = 0.05  # probability of the prefix MR-, and of starred drugs and effects
_DATE_FORMATS: Final = {
    "case": ("{d} {month} {y}", "{y}-{m:02d}-{d:02d}"),
    "pretraining": (
        *("{d} {month} {y}", "{y}-{m:02d}-{d:02d}"),
        *("{month} {d}, {y}", "{d:02d}/{m:02d}/{y}", "{d} {month:.3} {y}"),
    ),
}


@dataclass(frozen=True)
class Patient:
    """A fictitious person.

    Attributes:
        sex: "F" or "M".
        first: given name.
        last: family name.
        age: years.
        record: six digits, one patient only.
    """

    sex: str
    first: str
    last: str
    age: int
    record: int


@functools.cache
def _drug_classes(starred: bool) -> tuple[words.DrugClass, ...]:
    """All drug classes, with the starred drugs or without them."""
    return tuple(
        words.DrugClass(
            tuple((name.lstrip("*"), doses) for name, doses in group.drugs if starred or not name.startswith("*")),
            group.indications,
        )
        for group in words.DRUG_CLASSES
    )


@functools.cache
def _drug_names(starred: bool) -> tuple[str, ...]:
    return tuple(name for group in _drug_classes(starred) for name, _ in group.drugs)


@functools.cache
def _effects(starred: bool) -> tuple[str, ...]:
    return tuple(e.lstrip("*") for e in words.EFFECTS if starred or not e.startswith("*"))


@dataclass
class Facts:
    """Draws a fact when a plan first uses it, and then keeps it.

    So a text has the entropy of the facts that it contains, not of others.
    """

    patient: Patient
    style: Style
    dice: Dice
    _told: dict[str, str] = field(default_factory=dict)

    def slot(self, slot: str) -> str:
        """Words for a slot; a capitalised slot name gives words that begin with a capital.

        Raises:
            ValueError: the slot name is unknown.
        """
        words_ = self._fact(slot.lower())
        return words_[0].upper() + words_[1:] if slot[0].isupper() else words_

    def _fact(self, fact: str) -> str:
        if fact == "name":
            return f"{self._fact('first')} {self._fact('last')}"
        if fact in _BY_SEX["F"]:
            return _BY_SEX[self._fact("sex")][fact]
        if fact == "an":
            return "an" if self._fact("age") in ("18", *map(str, range(80, 90))) else "a"
        if fact == "onset":  # each mention is another span of time
            return f"{self.dice.pick(words.NUMBERS)} {self.dice.pick(words.UNITS)}"
        if fact not in self._told:
            self._told[fact] = self._draw(fact)
        return self._told[fact]

    def _draw(self, fact: str) -> str:
        pick = self.dice.pick
        match fact:
            case "sex":
                return self._known(self.patient.sex, 2)
            case "first":
                return self._known(self.patient.first, len(names.FIRST_NAMES[self._fact("sex")]))
            case "last":
                return self._known(self.patient.last, len(names.LAST_NAMES))
            case "age":
                return self._known(str(self.patient.age), len(AGES))
            case "rec":
                prefix = "MR-" if self._starred else pick(_OTHER_RECORD_PREFIXES)
                return prefix + self._known(str(self.patient.record), len(RECORDS))
            case "date":
                month = pick(range(12))
                return pick(_DATE_FORMATS[self.style]).format(
                    d=pick(range(1, 29)), m=month + 1, month=words.MONTHS[month], y=pick(YEARS)
                )
            case "drug":
                return self._drug[0]
            case "dose":
                return pick(self._drug[1])
            case "ind":
                return pick(self._drug_class.indications)
            case "drug2":
                others = [d for d in _drug_names(self._starred) if d != self._fact("drug")]
                return pick(others)
            case "effect" | "effect2" | "effect3":
                told = [self._told.get(f) for f in ("effect", "effect2", "effect3")]
                return pick([e for e in _effects(self._starred) if e not in told])
            case "outcome":
                return pick(words.OUTCOMES)
            case "action":
                return pick(words.ACTIONS)
            case "doc":
                return pick(names.LAST_NAMES)
            case "city":
                return pick(words.CITIES)
            case "job":
                return pick(words.JOBS)
            case _:
                raise ValueError(f"a plan uses the unknown slot {fact!r}")

    def _known(self, value: str, n_values: int) -> str:
        """A fact drawn with the patient: its entropy counts if the text contains it."""
        self.dice.nats += math.log(n_values)
        return value

    @functools.cached_property
    def _starred(self) -> bool:
        """Whether the text has starred items: always in case reports, rarely in pretraining."""
        return self.style == "case" or self.dice.chance(RARE_IN_PRETRAINING)

    @functools.cached_property
    def _drug_class(self) -> words.DrugClass:
        return self.dice.pick(_drug_classes(self._starred))

    @functools.cached_property
    def _drug(self) -> tuple[str, tuple[str, ...]]:
        return self.dice.pick(self._drug_class.drugs)
