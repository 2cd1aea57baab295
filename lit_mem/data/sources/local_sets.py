"""Local folders that `datasets.load_dataset` does not read as one expects: notes, and what `save_to_disk` wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.fields import RowFields
from lit_mem.data.sources.places import Place, holds_notes, place_of, sets_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.rows import read_table
from lit_mem.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

_WORD: Final = re.compile(r"[\w.-]+")


def local_sets(path: str) -> dict[str, Place]:
    """The sets of a folder of notes or of a saved dataset, by name; none where the folder is another, or none.

    A folder that is one set is its set `train`.

    Raises:
        DataError: its files are of several kinds, or its list of sets is malformed.
    """
    if not holds_notes(path):
        return {}
    return sets_of(path) or {"train": place_of(path)}


def local_split(path: str, sets: dict[str, Place], split: str, fields: RowFields) -> Dataset:
    """The rows of a split such as "train" or "train[:80%]", counted in rows that can be used.

    Args:
        path: of the folder, for messages.
        sets: it holds.
        split: as `datasets.load_dataset` takes it.
        fields: which columns hold the texts.

    Raises:
        DataError: there is no such split, or a row is not what was expected.
    """
    from datasets import ReadInstruction, concatenate_datasets

    names = [name for name in sets if name in _WORD.findall(split)]
    reading = fields.reading or Reading()
    # It is `TextFiles` that has the option which is named where bytes are of another encoding.
    as_utf8 = Reading(skip_unusable=reading.skip_unusable, section="TextFiles")
    rows = {name: fields.dataset(read_table(sets[name], as_utf8), sets[name].label) for name in names}
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows[name]) for name in names})
    except (ValueError, AssertionError) as error:
        raise DataError(f"{path}: has no split {split!r}; there are: {', '.join(sets)}") from error
    cut: list[Any] = [rows[part.splitname].select(range(part.from_, max(part.from_, part.to))) for part in parts]
    made = cut[0] if len(cut) == 1 else concatenate_datasets(cut)
    if not len(made):
        raise DataError(f"{path}, split {split!r}: is empty; expected at least one row")
    return made
