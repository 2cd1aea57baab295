"""PHEE: sentences of published case reports on adverse drug events (Sun et al. 2022, EMNLP)."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.bad_rows import BadRows, RowNumber
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import CONTRACT, text_of
from lit_mem.data.sources.phee_annotations import AnnotationError, events_of, sentence, spans_of, wordings
from lit_mem.data.sources.phee_patients import age_of, sex_of
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.table import Table
from lit_mem.errors import DataError
from lit_mem.files.cache import fetch
from lit_mem.files.places import cache_folder

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_URL = (
    "https://raw.githubusercontent.com/ZhaoyueSun/PHEE/12e9311e89c3d1d2db16a1a9fc93edf83ec2d9d8/data/json/{split}.json"
)
_SHA256 = {
    "train": "a2d6cbdae3d95cb3a7e13439164c002041061f6f9823608af483c82d17a31f2b",
    "dev": "e1e24c0dfbe6f624e590a26d294f3082d0142ffc28b9da56761f1dd45e96aa53",
    "test": "ca7e24a88f62e8201583e14f206cd4df5c543acc627abd195bea4df8acd9afdf",
}
_SPLITS: Final = ("train", "dev", "test")
_ID: Final = re.compile(r"([0-9]+)_[0-9]+")


class PHEE(Source):
    """PHEE as published: train.json are the members, dev.json is held out, test.json is the test.

    The three share no article. The group is the article (its PubMed number). Columns besides those of every split: `id`
    ("PubMed number_sentence"), `event_types` (list of str), `sex` and `age` (as worded in the text, several joined by
    "; "; "" if not stated), and for subgroups `patient_sex` ("female", "male", or "" if the wording of `sex` is
    ambiguous or has both) and `patient_age` (years; null unless `age` has one number with a unit).

    Column `spans` has the annotated spans, each fragment separately and once: a list of type (subject, age, sex, race,
    population, disorder, drug, dosage, frequency, route, duration, time_elapsed, effect), start and end, in characters
    of the completion. A span whose offsets do not match its text is skipped, and counted in the log (version 1 has
    none). Triggers and whole treatments, whose parts are included, are not spans.

    Args:
        folder: a folder with train.json, dev.json and test.json, of version 1 or 2; None: version 1
            is downloaded once (4 MB, MIT licence) to `~/.cache/lit_mem/phee`, or below
            `$LIT_MEM_CACHE` or `$XDG_CACHE_HOME`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def load(self) -> Corpus:
        """Read and check every row, after a download if needed.

        Raises:
            DataError: the network is unreachable, a file is missing or a row is invalid; names file and row.
        """
        folder = self._downloaded() if self.folder is None else Path(self.folder).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one with train.json, dev.json, test.json")
        tally: Counter[str] = Counter()
        train, heldout, test = (_split(folder / f"{name}.json", tally) for name in _SPLITS)
        if tally["astray"]:
            log.warning(
                "PHEE: %d of %d annotated spans are skipped: their offsets do not match their text.",
                tally["astray"],
                tally.total(),
            )
        return Corpus(train=train, heldout=heldout, test=test, name="PHEE")

    def _downloaded(self) -> Path:
        folder = cache_folder("phee")
        otherwise = (
            f"put PHEE's train.json, dev.json and test.json into {folder}, or set the option `folder` to their folder"
        )
        for split in _SPLITS:
            fetch(_URL.format(split=split), folder / f"{split}.json", _SHA256[split], otherwise)
        return folder


def _split(file: Path, tally: Counter[str]) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    table = read_table(str(file))
    ids, texts, notes = (table.column(name) for name in ("id", "context", "annotations"))
    seen: dict[str, RowNumber] = {}
    derived = ("patient_sex", "patient_age", "spans")
    made: dict[str, list[Any]] = {name: [] for name in (*CONTRACT, "id", "event_types", "sex", "age", *derived)}
    for number, row_id, raw, note in zip(table.numbers, ids, texts, notes, strict=True):
        text, problem = text_of(raw)
        if problem is not None:
            table.bad.add(number, f"field 'context': {problem}")
        group = _group(row_id, number, seen, table.bad)
        try:
            events = list(events_of(note))
            types = [event["event_type"] for event in events]
            sexes, ages = (wordings(events, name) for name in ("Gender", "Age"))
        except AnnotationError as error:
            table.bad.add(number, f"field 'annotations': {error}")
            continue
        row = (
            *("", sentence(text or ""), group, f"{file.name}:{number}", row_id, types),
            *("; ".join(sexes), "; ".join(ages), sex_of(sexes), age_of(ages)),
            spans_of(events, text or "", tally),
        )
        for column, value in zip(made.values(), row, strict=True):
            column.append(value)
    table.bad.check()
    span = pa.struct([("type", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
    types_of = {"event_types": pa.list_(pa.string()), "patient_age": pa.float64(), "spans": pa.list_(span)}
    return Dataset.from_dict({k: pa.array(v, types_of.get(k, pa.string())) for k, v in made.items()})


def _group(row_id: Any, number: RowNumber, seen: dict[str, RowNumber], bad: BadRows) -> str:
    if row_id is Table.ABSENT:
        bad.add(number, "field 'id': is missing")
        return ""
    match = _ID.fullmatch(row_id) if isinstance(row_id, str) else None
    if match is None:
        found = "another string" if isinstance(row_id, str) else type(row_id).__name__
        bad.add(number, f"field 'id': found {found}, expected a string like '1234567_1'")
        return ""
    if row_id in seen:
        bad.add(number, f"field 'id': repeats line {seen[row_id]}, expected each id once")
    seen.setdefault(row_id, number)
    return match[1]
