"""The bundled corpus of synthetic case reports: no real patients, no network."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mem.data.row_texts import contiguous
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.rows import read_table
from lit_mem.errors import ConfigError, check_range

if TYPE_CHECKING:
    from datasets import Dataset


class CaseReports(Source):
    """Synthetic case reports, to try everything offline.

    Columns besides those of every split: `id`, `spans` (lists of type, start and end of the sensitive
    spans of the completion, in characters), `sex`, `age`. The patient is the group.

    Args:
        folder: a folder with train.jsonl, heldout.jsonl and test.jsonl in this format; None: the
            bundled one.
        repeated: train on some reports several times, like notes copied from visit to visit: maps a number of
            repetitions to a number of reports. `{1: 140, 2: 30, 8: 30}` makes 440 rows of 200 reports. Held-out and
            test texts are not repeated. None: each occurs once.
        seed: seed of the choice of reports.

    Raises:
        ConfigError: `repeated` is empty, or a number in it is below 1.
    """

    def __init__(self, folder: str | None = None, repeated: dict[int, int] | None = None, seed: int = 0) -> None:
        self.folder, self.repeated, self.seed = folder, repeated, seed
        if repeated is not None:
            if not repeated:
                raise ConfigError("data.source.repeated is empty; expected {times: reports}, such as {1: 140, 8: 30}")
            for times, reports in repeated.items():
                check_range("data.source.repeated: a number of times", times, at_least=1)
                check_range(f"data.source.repeated: reports repeated {times} times", reports, at_least=1)

    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is missing or a row is invalid; the message names file, row and field.
            ConfigError: `repeated` needs more reports than available.
        """
        from lit_mem import assets

        folder = Path(self.folder).expanduser() if self.folder is not None else assets.path("case_reports")
        train, heldout, test = (_split(folder / f"{name}.jsonl") for name in ("train", "heldout", "test"))
        if self.repeated is not None:
            train = _repeated(train, self.repeated, self.seed)
        return Corpus(train=train, heldout=heldout, test=test, name="case_reports")


def _split(file: Path) -> Dataset:
    table = read_table(str(file))
    for name in ("id", "spans", "sex", "age"):
        table.column(name)  # Raises if it is missing.
    return TextFields(text_column="text", group_column="group").dataset(table, file.name)


def _repeated(rows: Dataset, times: Mapping[int, int], seed: int) -> Dataset:
    """Randomly chosen reports, in their original order, each followed by its copies.

    Raises:
        ConfigError: there are too few reports.
    """
    wanted = [n for n, reports in sorted(times.items()) for _ in range(reports)]
    if len(wanted) > len(rows):
        raise ConfigError(f"data.source.repeated needs {len(wanted)} distinct reports; expected at most {len(rows)}")
    drawn = random.Random(seed).sample(range(len(rows)), len(wanted))
    places = [(i, copy) for i, n in sorted(zip(drawn, wanted, strict=True)) for copy in range(1, n + 1)]
    origins = [f"{rows[i]['origin']}{f' copy {copy}' if copy > 1 else ''}" for i, copy in places]
    made = contiguous(rows.select([i for i, _ in places]))
    return made.remove_columns("origin").add_column("origin", origins, feature=made.features["origin"])
