"""Texts that are in memory already: a list of texts or of rows, or a `datasets.Dataset`, in place of a source."""

from __future__ import annotations

from typing import Any

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.json_rows import row_table
from lit_mem.data.sources.table import Table
from lit_mem.errors import ConfigError

_NAME = "data.source"


class Given(Source):
    """Rows with a column `text`, or with `prompt` and `completion`; and with `group`, if they have it.

    Args:
        rows: (N,) texts, or (N,) dictionaries, or a `Dataset`, or a `DatasetDict` with a split `train`. Its split
            `heldout`, or else `validation`, is held out; where there is neither, rows of `train` are. `test` is the
            second held-out set.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def load(self) -> Corpus:
        """Check every row.

        Raises:
            DataError: a row has no text.
            ConfigError: there is no split `train`.
        """
        if not isinstance(self.rows, dict):
            return Corpus(self._split(self.rows, "train"), None, None, _NAME)
        if "train" not in self.rows:
            raise ConfigError(f"{_NAME} has the splits {', '.join(map(repr, self.rows))}; expected one named 'train'")
        heldout = next((self.rows[name] for name in ("heldout", "validation") if name in self.rows), None)
        return Corpus(
            self._split(self.rows["train"], "train"),
            None if heldout is None else self._split(heldout, "heldout"),
            self._split(self.rows["test"], "test") if "test" in self.rows else None,
            _NAME,
        )

    @staticmethod
    def _split(rows: Any, name: str) -> Any:
        if hasattr(rows, "column_names"):
            table = Table.of_dataset(f"{_NAME} ({name})", rows)
        else:
            table = row_table(_NAME, [{"text": row} if isinstance(row, str) else row for row in rows])
        pair = {"prompt", "completion"} <= set(table.names) and "text" not in table.names
        prompt, completion = ("{prompt}", "{completion}") if pair else (None, None)
        group = "group" if "group" in table.names else None
        return TextFields("text", prompt, completion, group).dataset(table, name)


def as_source(source: Any) -> Source:
    """A source as it is, and rows in memory as one.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(source, Source):
        return source
    if (isinstance(source, list | tuple) and source) or _is_dataset(source):
        return Given(source)
    found = f"an empty {type(source).__name__}" if source in ([], ()) else f"a {type(source).__name__}"
    raise ConfigError(
        f"{_NAME} is {found}; expected a source such as TextFiles('notes.jsonl'), a list of texts or of rows, or a "
        "datasets.Dataset (of a pyarrow.Table: datasets.Dataset(table); streamed: read it whole first)"
    )


def _is_dataset(source: Any) -> bool:
    if not hasattr(source, "column_names"):
        return False
    from datasets import Dataset, DatasetDict

    return isinstance(source, Dataset | DatasetDict)
