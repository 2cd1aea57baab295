"""Local folders that `datasets.load_dataset` does not read as expected: notes, and output of `save_to_disk`."""

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
    """The sets of a folder of notes or of a saved dataset, by name; empty for any other folder, or none.

    A folder that is a single set is the set `train`.

    Raises:
        DataError: its files are of several kinds, or its list of sets is malformed.
    """
    if not holds_notes(path):
        return {}
    return sets_of(path) or {"train": place_of(path)}


def local_split(path: str, sets: dict[str, Place], split: str, fields: RowFields) -> Dataset:
    """The rows of a split such as "train" or "train[:80%]", counted in usable rows.

    Args:
        path: path of the folder, for messages.
        sets: sets in the folder.
        split: as for `datasets.load_dataset`.
        fields: which columns hold the texts.

    Raises:
        DataError: the split does not exist, or a row is invalid.
    """
    from datasets import ReadInstruction, concatenate_datasets

    names = [name for name in sets if name in _WORD.findall(split)]
    reading = fields.reading or Reading()
    # The option for another encoding, named in errors, is one of `TextFiles`.
    as_utf8 = Reading(skip_unusable=reading.skip_unusable, section="TextFiles")
    rows = {name: fields.dataset(read_table(sets[name], as_utf8), sets[name].label) for name in names}
    try:
        parts = ReadInstruction.from_spec(split).to_absolute({name: len(rows[name]) for name in names})
    except (ValueError, AssertionError) as error:
        raise DataError(f"{path}: has no split {split!r}; expected one of {', '.join(sets)}") from error
    cut: list[Any] = [rows[part.splitname].select(range(part.from_, max(part.from_, part.to))) for part in parts]
    made = cut[0] if len(cut) == 1 else concatenate_datasets(cut)
    if not len(made):
        raise DataError(f"{path}, split {split!r}: is empty; expected at least one row")
    return made
