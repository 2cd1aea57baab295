"""The bundled corpus of made-up case reports: no real patient, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.rows import read_table

if TYPE_CHECKING:
    from datasets import Dataset


class CaseReports(Source):
    """Made-up case reports, to try everything offline.

    Columns beside those of every split: `id`, `spans` (lists of type, start and end of the telling
    pieces of the completion, in characters), `sex`, `age`. The patient is the group.

    Args:
        folder: a folder with train.jsonl, heldout.jsonl and test.jsonl of this form; None: the
            bundled one.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is absent or a row is not what was expected; the message names file,
                row and field.
        """
        from lit_mem import assets

        folder = Path(self.folder).expanduser() if self.folder is not None else assets.path("case_reports")
        train, heldout, test = (_split(folder / f"{name}.jsonl") for name in ("train", "heldout", "test"))
        return Corpus(train=train, heldout=heldout, test=test, name="case_reports")


def _split(file: Path) -> Dataset:
    table = read_table(str(file))
    for name in ("id", "spans", "sex", "age"):
        table.column(name)  # Raises where it is missing.
    return TextFields(text_column="text", group_column="group").dataset(table, file.name)
