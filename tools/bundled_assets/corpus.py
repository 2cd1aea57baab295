"""A synthetic pharmacovigilance corpus: every person, number and event is drawn at random.

One seed gives the splits of case reports (`case_reports`) and any number of pretraining texts
(`pretraining_texts`) which share no patient, no record number and no text with them.

>>> splits = case_reports(seed=0, sizes={"train": 3, "test": 2})
>>> [len(rows) for rows in splits.values()]
[3, 2]
"""

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypedDict

from lit_mem.data.canaries import names
from tools.bundled_assets import plans
from tools.bundled_assets.facts import AGES, RECORDS, Facts, Patient, Style
from tools.bundled_assets.grammar import Dice, expand, parse

SPLIT_SIZES: Final[Mapping[str, int]] = {"train": 600, "heldout": 600, "test": 300}
N_NOTES: Final = 210
# Three kinds of plan (see plans.py), mixed otherwise in the case reports than in pretraining.
SPECIAL_PLANS_IN_CASE_REPORTS: Final = 0.7  # the other case reports have shared plans
SPECIAL_PLANS_IN_PRETRAINING: Final = 0.06
NOTES_IN_PRETRAINING: Final = 0.4  # the other pretraining texts have shared plans
REPORTS_PER_PATIENT: Final = (1,) * 18 + (2, 3)

_SPAN_TYPES: Final = {
    **{"name": "name", "first": "name", "last": "name", "doc": "name"},
    **{"date": "date", "rec": "record", "age": "age"},
    **{"drug": "drug", "drug2": "drug"},
    **{"effect": "effect", "effect2": "effect", "effect3": "effect"},
}


class Span(TypedDict):
    """Position of a sensitive span: `text[start:end]`, in characters."""

    type: str
    start: int
    end: int


class Row(TypedDict):
    """One case report: a line of the JSON Lines files."""

    id: str
    group: str
    text: str
    spans: list[Span]
    sex: str
    age: int


class Note(TypedDict):
    """A row of the notes, with the columns that a file of one's own may have."""

    text: str
    person: str


class Text(NamedTuple):
    """A synthetic text; `nats` is an upper bound on its negative log-likelihood under the best possible model."""

    text: str
    spans: list[Span]
    nats: float


def write(patient: Patient, style: Style, rng: random.Random) -> Text:
    """Write one text about a patient, as a case report or in any style of the pretraining text."""
    dice = Dice(rng)
    choices: tuple[str, ...]
    if style == "case":
        special = dice.chance(SPECIAL_PLANS_IN_CASE_REPORTS)
        choices = plans.SPECIAL if special else plans.SHARED
    elif dice.chance(NOTES_IN_PRETRAINING):
        choices = plans.NOTES
    else:
        special = dice.chance(SPECIAL_PLANS_IN_PRETRAINING / (1 - NOTES_IN_PRETRAINING))
        choices = plans.SPECIAL if special else plans.SHARED
    skeleton = expand(parse(dice.pick(choices)), dice)
    facts = Facts(patient, style, dice)
    text, spans = "", list[Span]()
    for piece in re.split(r"(\{\w+\})", skeleton):
        filled = facts.slot(piece[1:-1]) if piece.startswith("{") else piece
        if (kind := _SPAN_TYPES.get(piece[1:-1].lower())) and filled is not piece:
            spans.append(Span(type=kind, start=len(text), end=len(text) + len(filled)))
        text += filled
    return Text(text, spans, dice.nats)


def draw_patient(rng: random.Random) -> Patient:
    """Draw a person; the caller ensures that `record` is unique."""
    sex = rng.choice("FM")
    return Patient(
        sex=sex,
        first=rng.choice(names.FIRST_NAMES[sex]),
        last=rng.choice(names.LAST_NAMES),
        age=rng.choice(AGES),
        record=rng.choice(RECORDS),
    )


def case_patients(seed: int, n: int) -> list[Patient]:
    """Draw the first n patients of the case reports; names and record numbers are all distinct."""
    rng = random.Random(f"patients {seed}")
    names, records, patients = set[tuple[str, str]](), set[int](), list[Patient]()
    while len(patients) < n:
        patient = draw_patient(rng)
        if (patient.first, patient.last) in names or patient.record in records:
            continue
        names.add((patient.first, patient.last))
        records.add(patient.record)
        patients.append(patient)
    return patients


def case_reports(seed: int = 0, sizes: Mapping[str, int] = SPLIT_SIZES) -> dict[str, list[Row]]:
    """Draw the splits of the case reports from one distribution.

    A patient belongs to one split only, so no split shares a name, a record number or a text with
    another.

    Args:
        seed: any integer; the same seed gives the same rows.
        sizes: rows of each split, by split name.

    Returns:
        The rows of each split, in random order.
    """
    # One patient per row is always enough, and the order does not depend on the sizes.
    patients = iter(case_patients(seed, sum(sizes.values())))
    seen: set[str] = set()
    splits: dict[str, list[Row]] = {}
    for split, size in sizes.items():
        rng = random.Random(f"reports {split} {seed}")
        rows: list[Row] = []
        while len(rows) < size:
            patient = next(patients)
            for _ in range(min(rng.choice(REPORTS_PER_PATIENT), size - len(rows))):
                text, spans, _nats = write(patient, "case", rng)
                if text in seen:
                    continue
                seen.add(text)
                group = f"patient-{patient.record}"
                rows.append(Row(id="", group=group, text=text, spans=spans, sex=patient.sex, age=patient.age))
        rng.shuffle(rows)
        splits[split] = [Row({**row, "id": f"{split}-{i:04d}"}) for i, row in enumerate(rows)]
    return splits


def notes(seed: int = 0) -> list[Note]:
    """Draw the notes that stand for a file of one's own: of other patients than the case reports.

    Their patients follow those of the case reports, and are among those that the pretraining text leaves out.
    """
    rows = case_reports(seed, {**SPLIT_SIZES, "notes": N_NOTES})["notes"]
    persons = {group: f"person-{i:03d}" for i, group in enumerate(dict.fromkeys(row["group"] for row in rows))}
    return [Note(text=row["text"], person=persons[row["group"]]) for row in rows]


def pretraining_texts(seed: int = 0, *, avoid: Iterable[Patient]) -> Iterator[Text]:
    """Generate pretraining texts endlessly, each about a new random patient.

    Args:
        seed: any integer.
        avoid: patients of the case reports: nobody with the full name or the record number of one of them is written
            about. Hence no text equals a case report, unless it has neither name nor record number, and every case
            report has both.
    """
    rng = random.Random(f"pretraining {seed}")
    avoid = list(avoid)
    names = {(patient.first, patient.last) for patient in avoid}
    records = {patient.record for patient in avoid}
    while True:
        patient = draw_patient(rng)
        if (patient.first, patient.last) not in names and patient.record not in records:
            yield write(patient, "pretraining", rng)


def to_jsonl(rows: Iterable[Row] | Iterable[Note]) -> str:
    """Rows as JSON Lines, ASCII, one trailing newline per row."""
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
