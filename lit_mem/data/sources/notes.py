"""Read a folder of notes: each file is one text."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from lit_mem.data.sources.bad_rows import BadRows
from lit_mem.data.sources.brat import AnnotationError, brat_spans
from lit_mem.data.sources.decoding import UnreadableError, content
from lit_mem.data.sources.places import Place, suffix_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.table import Table

_MARKS: Final = ".ann"


def read_notes(place: Place, reading: Reading) -> Table:
    """Each file as a row, numbered from 1 in path order; files that cannot be decoded are recorded in the table.

    The column `text` is the whole file. If notes are in several subfolders, the column `folder` has the number of each
    note's subfolder (its name may be a person's). If there are BRAT .ann files next to the notes, the column `spans`
    has their spans; null for a note without one.

    Args:
        place: the files of notes.
        reading: their encoding.
    """
    bad, numbers, texts, marks = BadRows(place.path, "file"), list[int](), list[str](), list[Any]()
    folders: list[Path] = []
    for number, file in enumerate(place.files, start=1):
        try:
            text = content(file, reading)
            spans = _spans(file, text, reading)
        except UnreadableError as error:
            bad.add(number, error.problem if error.line is None else f"line {error.line}: {error.problem}")
            continue
        except AnnotationError as error:
            bad.add(number, str(error))
            continue
        numbers.append(number)
        texts.append(text)
        marks.append(spans)
        folders.append(file.parent)
    bad.n_rows = len(place.files)
    columns: dict[str, list[Any]] = {"text": texts}
    if any(one != other for one, other in pairwise(folders)):
        order = {folder: str(number) for number, folder in enumerate(sorted(set(folders)), start=1)}
        columns["folder"] = [order[folder] for folder in folders]
    if any(spans is not None for spans in marks):
        columns["spans"] = marks
    return Table(place.path, "file", numbers, bad, columns)


def _spans(file: Path, text: str, reading: Reading) -> list[dict[str, Any]] | None:
    beside = file.with_name(file.name[: len(file.name) - len("".join(suffix_of(file)))] + _MARKS)
    return brat_spans(content(beside, reading), text) if beside.is_file() else None
