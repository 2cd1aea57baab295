"""PHEE: sentences of published case reports on adverse drug events (Sun et al. 2022, EMNLP)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.download import cache_folder, fetch
from lit_mem.data.sources.fields import CONTRACT, text_of
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.table import BadRows, Table
from lit_mem.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

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

    The three share no article. The group is the article (its PubMed number). Columns beside those
    of every split: `id` ("PubMed number_sentence"), `event_types` (list of str), `sex` and `age`
    (as the text words them, several joined by "; "; "" where it does not say).

    Args:
        folder: a folder with train.json, dev.json and test.json, of version 1 or 2; None: version 1
            is downloaded once (4 MB, MIT licence) to `~/.cache/lit_mem/phee`, or below
            `$LIT_MEM_CACHE` or `$XDG_CACHE_HOME`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def load(self) -> Corpus:
        """Read and check every row, after a download where one is needed.

        Raises:
            DataError: there is no network, a file is absent or a row is not what was expected;
                names file and row.
        """
        folder = self._downloaded() if self.folder is None else Path(self.folder).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one with train.json, dev.json, test.json")
        train, heldout, test = (_split(folder / f"{name}.json") for name in _SPLITS)
        return Corpus(train=train, heldout=heldout, test=test, name="PHEE")

    def _downloaded(self) -> Path:
        folder = cache_folder("phee")
        otherwise = (
            f"put PHEE's train.json, dev.json and test.json into {folder}, "
            "or give the folder that has them as option `folder`"
        )
        for split in _SPLITS:
            fetch(_URL.format(split=split), folder / f"{split}.json", _SHA256[split], otherwise)
        return folder


def _split(file: Path) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset

    table = read_table(str(file))
    ids, texts, notes = (table.column(name) for name in ("id", "context", "annotations"))
    seen: dict[str, int] = {}
    made: dict[str, list[Any]] = {name: [] for name in (*CONTRACT, "id", "event_types", "sex", "age")}
    for number, row_id, raw, note in zip(table.numbers, ids, texts, notes, strict=True):
        text, problem = text_of(raw)
        if problem is not None:
            table.bad.add(number, f"field 'context': {problem}")
        group = _group(row_id, number, seen, table.bad)
        try:
            events = list(_events(note))
            types = [event["event_type"] for event in events]
            sex, age = (_subject(events, name) for name in ("Gender", "Age"))
        except _AnnotationError as error:
            table.bad.add(number, f"field 'annotations': {error}")
            continue
        # One row has a line break within its sentence.
        sentence = re.sub(r"[\r\n]+", " ", (text or "").strip())
        row = ("", sentence, group, f"{file.name}:{number}", row_id, types, sex, age)
        for column, value in zip(made.values(), row, strict=True):
            column.append(value)
    table.bad.check()
    types_of = {"event_types": pa.list_(pa.string())}
    return Dataset.from_dict({k: pa.array(v, types_of.get(k, pa.string())) for k, v in made.items()})


def _group(row_id: Any, number: int, seen: dict[str, int], bad: BadRows) -> str:
    if row_id is Table.ABSENT:
        bad.add(number, "field 'id': is absent")
        return ""
    match = _ID.fullmatch(row_id) if isinstance(row_id, str) else None
    if match is None:
        found = "another text" if isinstance(row_id, str) else type(row_id).__name__
        bad.add(number, f"field 'id': found {found}, expected a text like '1234567_1'")
        return ""
    if row_id in seen:
        bad.add(number, f"field 'id': is that of line {seen[row_id]} too, expected each id once")
    seen.setdefault(row_id, number)
    return match[1]


class _AnnotationError(ValueError):
    """Annotations are not of PHEE's form; says what was found and expected."""


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        found = "nothing" if value is Table.ABSENT or value is None else type(value).__name__
        raise _AnnotationError(f"found {found}, expected {what}")
    return value


def _events(annotations: Any) -> Iterator[dict[str, Any]]:
    for annotation in _expect(annotations, list, "a list"):
        events = _expect(annotation, dict, "a list of objects").get("events")
        for event in _expect(events, list, "a list 'events' in each"):
            _expect(
                _expect(event, dict, "objects in 'events'").get("event_type"),
                str,
                "a text 'event_type' in each event",
            )
            yield event


def _subject(events: list[dict[str, Any]], name: str) -> str:
    """What the events say of their subject: fragments by spaces, entities by "; ", each once."""
    said: dict[str, None] = {}
    for event in events:
        leaf = _expect(event.get("Subject", {}), dict, "an object 'Subject'").get(name)
        if leaf is None:
            continue
        form = f"lists of texts in Subject.{name}.text"
        for entity in _expect(_expect(leaf, dict, form).get("text"), list, form):
            fragments = [_expect(fragment, str, form) for fragment in _expect(entity, list, form)]
            said[" ".join(fragments)] = None
    return "; ".join(said)
