"""Texts in memory: a list of texts or of rows, or a `datasets.Dataset`, in place of a source."""

from __future__ import annotations

import os
from typing import Any

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.given_fields import Fields, UsualFields, fields_of
from lit_mem.data.sources.json_rows import row_table
from lit_mem.data.sources.places import Place, place_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.table import Table
from lit_mem.data.sources.text import check_apart
from lit_mem.errors import ConfigError
from lit_mem.functional.plain_text import printable

_NAME = "data.source"
_MESSAGES = "messages"


class Given(Source):
    """Rows with a column `text`, or with `prompt` and `completion`; and optionally `group`.

    Args:
        rows: (N,) texts, or (N,) dictionaries, or a `Dataset`, or a `DatasetDict` with a split `train`. Its split
            `heldout`, or else `validation`, is held out; without either, rows of `train` are held out. `test` is the
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
        table = table_of(rows, f"{_NAME} ({name})" if hasattr(rows, "column_names") else _NAME)
        return UsualFields().dataset(table, name)


class TwoSets(Source):
    """Members and held-out texts, given separately: rows in memory as for `Given`, or a file.

    Args:
        members: texts that the model was trained on: a list, a `datasets.Dataset`, or the path of a file, folder or
            glob pattern as for `TextFiles`; rows may be conversations, a column `messages` or lists of {role, content}.
        heldout: texts from the same distribution that it was not trained on, in the same formats.
        fields: which columns hold the texts; None: `text`, or `prompt` and `completion`; and optionally `group`.

    Raises:
        ConfigError: both are the same file, or share a file.
    """

    def __init__(self, members: Any, heldout: Any, fields: Fields = None) -> None:
        paths = [one for one in (members, heldout) if isinstance(one, str | os.PathLike)]
        if len(paths) == 2 and os.path.realpath(paths[0]) == os.path.realpath(paths[1]):
            raise ConfigError(f"heldout is the same file as members ({paths[0]}); expected texts not trained on")
        self._sets = {"members": members, "heldout": heldout}
        self._fields = fields_of(fields)

    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is missing, or a row is invalid; the message names it.
            ConfigError: a set is neither a list, nor a dataset, nor a path; or it is empty.
        """
        sets = {name: _place(rows) for name, rows in self._sets.items()}
        places = {name: rows for name, rows in sets.items() if isinstance(rows, Place)}
        check_apart(places)
        short = len({place.label for place in places.values()}) == len(places)  # origins are also used as groups
        made = [given_set(rows, name, self._fields, short) for name, rows in sets.items()]
        return Corpus(made[0], made[1], None, "given", trains=False)


def given_set(rows: Any, name: str, fields: Fields = None, short: bool = True) -> Any:
    """One set of rows with the columns of `Corpus`.

    Args:
        rows: a list of texts, of rows or of conversations, a `datasets.Dataset`, or the path of a file, folder or glob
            pattern.
        name: name of the set in messages, and in `origin` if it is not a file.
        fields: which columns hold the texts; None: as for `UsualFields`.
        short: whether `origin` has the file's name without its folder.

    Raises:
        DataError: a row is invalid.
        ConfigError: it is not a list, a dataset or a path; or it is empty.
    """
    fields, rows = fields_of(fields), _place(rows)
    if isinstance(rows, Place):
        table = read_table(rows, fields.reading or Reading(section="fields"))
        return fields.dataset(table, rows.label if short else printable(rows.path))
    if not (isinstance(rows, list | tuple) or hasattr(rows, "column_names")):
        raise ConfigError(
            f"{name} is a {type(rows).__name__}; expected a list of texts or of rows, a datasets.Dataset, or the "
            "path of a file"
        )
    if not len(rows):
        raise ConfigError(f"{name} is empty; expected at least one text")
    return fields.dataset(table_of(rows, name), name)


def _place(rows: Any) -> Any:
    """The files of a path; rows in memory unchanged."""
    return place_of(os.fspath(rows)) if isinstance(rows, str | os.PathLike) else rows


def table_of(rows: Any, name: str) -> Table:
    """Rows in memory as a table, named `name` in messages: texts, dictionaries, or a `datasets.Dataset`."""
    if hasattr(rows, "column_names"):
        return Table.of_dataset(name, rows)
    return row_table(name, (_row(row) for row in rows))


def _row(row: Any) -> Any:
    """Convert a text, or a conversation as a list of messages, to a row."""
    if isinstance(row, str):
        return {"text": row}
    return {_MESSAGES: row} if isinstance(row, list) else row


def as_source(source: Any) -> Source:
    """A source unchanged, and rows in memory as a source.

    Raises:
        ConfigError: it is neither a source nor rows.
    """
    if isinstance(source, Source):
        return source
    if (isinstance(source, list | tuple) and source) or _is_dataset(source):
        return Given(source)
    found = f"an empty {type(source).__name__}" if source in ([], ()) else f"a {type(source).__name__}"
    raise ConfigError(
        f"{_NAME} is {found}; expected a source such as TextFiles('notes.jsonl'), a list of texts or of rows, or a "
        "datasets.Dataset (of a pyarrow.Table: datasets.Dataset(table); if streamed: load it fully first)"
    )


def _is_dataset(source: Any) -> bool:
    if not hasattr(source, "column_names"):
        return False
    from datasets import Dataset, DatasetDict

    return isinstance(source, Dataset | DatasetDict)
