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
    """Each file as a row, numbered from 1 in the order of paths; files that cannot be decoded are noted in the table.

    The column `text` is the whole file. Where notes lie in several sub-folders, the column `folder` has the number of
    each note's (its name may be a person's). Where there are .ann files beside the notes, as BRAT writes them, the
    column `spans` has their spans; null where a note has none beside it.

    Args:
        place: files of notes.
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
