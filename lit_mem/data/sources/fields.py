"""Convert rows to the columns of every split: prompt, completion, group and origin."""

from __future__ import annotations

import logging
import math
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Protocol

from lit_mem.data.row_texts import contiguous
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.stored import StoredColumn, dataset_of
from lit_mem.data.sources.table import Table, shown
from lit_mem.data.templates import template_of
from lit_mem.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

CONTRACT: Final = ("prompt", "completion", "group", "origin")

_WHOLE: Final = re.compile(r"^(-?\d+)\.0+$")
_INDEX: Final = re.compile(r"Unnamed: 0(\.\d+)*|__index_level_\d+__")

Finding = tuple[str | None, str | None]
"""A usable string and None, or None and the problem with the value."""


class TextFields:
    r"""Which columns hold the text, and which one the group.

    Args:
        text_column: the column with the text to train on; ignored with templates.
        prompt_template: text that is not trained on, with columns in braces: "Question: {question}\nAnswer:". A doubled
            brace is a literal one; \n and \t are a line break and a tab, also as passed by a shell, and \\n is a
            backslash and an n. "file:prompt.txt" reads the template from that file, without a final line break.
        completion_template: text that is trained on, in the same format: " {answer}". Set both templates, or neither.
        group_column: rows with the same value (a patient, a document) stay on one side of every
            split.
        section: section of these options, for messages.
        reading: how the rows were read: whether unusable ones are skipped; None: no such option.

    Raises:
        ConfigError: one template without the other, or one that is malformed, or whose file cannot be read.
    """

    def __init__(
        self,
        text_column: str = "text",
        prompt_template: str | None = None,
        completion_template: str | None = None,
        group_column: str | None = None,
        section: str = "data.source",
        reading: Reading | None = None,
    ) -> None:
        self.section, self.reading = section, reading
        if (prompt_template is None) != (completion_template is None):
            given = "prompt_template" if completion_template is None else "completion_template"
            raise ConfigError(
                f"only {given} is given; expected both prompt_template and completion_template, or neither"
            )
        self.text_column, self.group_column = text_column, group_column
        self.templates: tuple[_Template, _Template] | None = None
        if prompt_template is not None and completion_template is not None:
            self.templates = (
                _Template("prompt_template", prompt_template),
                _Template("completion_template", completion_template),
            )
            if not self.templates[1].fields:
                raise ConfigError("completion_template has no column; expected at least one, such as '{answer}'")

    def dataset(self, table: Table, label: str) -> Dataset:
        """Check every row and build the split.

        Args:
            table: the rows of one file.
            label: name of the file in `origin`, "train.json" in "train.json:17".

        Returns:
            (N,) rows with the columns `prompt`, `completion`, `group`, `origin`, then those of the file. A column of
            the file with one of these four names is dropped, and so is `text_column`, which becomes `completion`.

        Raises:
            DataError: a column or text is missing or not a string; names file, rows and fields.
        """
        self._require(table)
        origins = StoredColumn(f"{label}:{number}" for number in table.numbers)
        prompts, completions = self._filled(table, self.templates) if self.templates else self._plain(table)
        groups = origins if self.group_column is None else checked_column(table, self.group_column, group_of)
        usable = usable_rows(table, self.reading)
        used = {*self._text_columns(), self.group_column}
        dropped = {*CONTRACT} if self.templates else {*CONTRACT, self.text_column}
        lost = [name for name in table.names if name in CONTRACT and name not in used]
        if lost:
            log.warning(
                "%s: column %s is replaced by the generated one of the same name.",
                table.file,
                ", ".join(lost),
            )
        dropped |= self._index_columns(table, used)
        kept = [name for name in table.names if name not in dropped]
        columns = dict(zip(CONTRACT, (prompts, completions, groups, origins), strict=True))
        return split_of(columns, table, kept, usable)

    @staticmethod
    def _index_columns(table: Table, used: Collection[str | None]) -> set[str]:
        """Columns of row numbers written by pandas."""
        found = [name for name in table.names if is_index(name) and name not in used]
        if found:
            log.info("%s: column %s is a pandas index; skipped.", table.file, ", ".join(map(shown, found)))
        return set(found)

    def _require(self, table: Table) -> None:
        """Report all missing columns at once, with their options; and columns of conversations."""
        wanted = {self.text_column: "text_column"} if self.templates is None else {}
        for template in self.templates or ():
            for name in template.fields:
                wanted.setdefault(name, template.option)
        texts = list(wanted)
        if self.group_column is not None:
            wanted.setdefault(self.group_column, "group_column")
        table.require({name: f"{self.section}.{option}" for name, option in wanted.items()})
        for name in texts:
            if chat := table.chat(name):
                raise DataError(
                    f"{table.file}: column {shown(name)} ({self.section}.{wanted[name]}) holds {chat}; "
                    "expected a string in each row, or data.source ChatFiles to read conversations"
                )

    def _text_columns(self) -> list[str]:
        if self.templates is None:
            return [self.text_column]
        return [name for template in self.templates for name in template.fields]

    def _plain(self, table: Table) -> tuple[StoredColumn, StoredColumn]:
        texts = checked_column(table, self.text_column, text_of)
        return StoredColumn(repeat("", len(texts))), texts

    def _filled(self, table: Table, templates: tuple[_Template, _Template]) -> tuple[StoredColumn, StoredColumn]:
        prompt, completion = templates
        values = {name: checked_column(table, name, piece_of) for name in dict.fromkeys(self._text_columns())}
        for number, *given in zip(table.numbers, *(values[name] for name in completion.fields), strict=True):
            # The template's own words must not make an empty answer look like text.
            if not any(value.strip() for value in given):
                fields = ", ".join(map(shown, completion.fields))
                table.bad.add(number, f"field {fields}: found only whitespace, expected text")
        n_rows = len(table.numbers)
        return StoredColumn(prompt.fill(values, n_rows)), StoredColumn(completion.fill(values, n_rows))


class RowFields(Protocol):
    """Converts a file's rows to a split.

    Attributes:
        reading: how files are read; None: defaults.
    """

    reading: Reading | None
    group_column: str | None

    def dataset(self, table: Table, label: str) -> Dataset:
        """The rows with the columns of `Corpus`; `label` is the file's name in `origin`."""
        ...


def usable_rows(table: Table, reading: Reading | None) -> list[int] | None:
    """Positions of usable rows; None: all are usable.

    Raises:
        DataError: some are unusable, and are not to be skipped.
    """
    if reading is None:
        table.bad.check()
    elif not reading.skip_unusable:
        table.bad.check(reading.skipping)
    return table.bad.usable(table.numbers)


def is_index(name: str) -> bool:
    """Whether a column has pandas' name for an unnamed index.

    >>> [is_index(name) for name in ("Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "Unnamed: 3", "id")]
    [True, True, True, False, False]
    """
    return _INDEX.fullmatch(name) is not None


class _Template:
    """A template with column names in braces, which may contain dots and spaces."""

    def __init__(self, option: str, text: str) -> None:
        try:
            parsed = list(string.Formatter().parse(template_of(option, text)))
        except ValueError as error:
            raise ConfigError(f"{option} is malformed ({error}); write a plain brace as '{{{{' or '}}}}'") from error
        for _, name, spec, conversion in parsed:
            if name is not None and (not name.strip() or name.isdigit()):
                raise ConfigError(f"{option} has empty braces; expected a column name, such as '{{text}}'")
            if spec or conversion:
                raise ConfigError(f"{option}: found a format after {name!r}; expected only a column name")
        self.option = option
        self._parts = [(literal, name) for literal, name, _, _ in parsed]
        self.fields = list(dict.fromkeys(name for _, name in self._parts if name is not None))

    def fill(self, values: Mapping[str, Iterable[str]], n_rows: int) -> Iterator[str]:
        """The (n_rows,) texts, each with its row's values filled in."""
        given = zip(*(values[name] for name in self.fields), strict=True) if self.fields else repeat((), n_rows)
        places = [(literal, None if name is None else self.fields.index(name)) for literal, name in self._parts]
        for row in given:
            yield "".join(literal + (row[place] if place is not None else "") for literal, place in places)


def split_of(
    columns: Mapping[str, StoredColumn], table: Table, kept: Sequence[str], usable: Sequence[int] | None
) -> Dataset:
    """Build the dataset of a split.

    Args:
        columns: strings by column name, N each.
        table: the N rows of the file.
        kept: other columns of the file to keep.
        usable: positions of the rows to keep; None: all.
    """
    import pyarrow as pa
    from datasets import concatenate_datasets

    made = dataset_of({name: values.arrow().cast(pa.string()) for name, values in columns.items()})
    parts = [made, table.keep(kept)] if kept else [made]
    if usable is not None:
        parts = [contiguous(part.select(usable)) for part in parts]
    return concatenate_datasets(parts, axis=1) if kept else parts[0]


def checked_column(table: Table, name: str, reader: Callable[[Any], Finding]) -> StoredColumn:
    """The (N,) values of a column as strings; "" for an invalid one, which is recorded in `table.bad`."""
    texts = StoredColumn()
    for number, value in zip(table.numbers, table.column(name), strict=True):
        text, problem = reader(value)
        if problem is not None:
            table.bad.add(number, f"field {shown(name)}: {problem}")
        texts.append(text or "")
    return texts


def text_of(value: Any) -> Finding:
    """A value as a non-empty string; other types are rejected."""
    text, problem = piece_of(value, kinds=(str,))
    if problem is None and not (text or "").strip():
        return None, f"found {'only whitespace' if text else 'an empty string'}, expected text"
    return text, problem


def group_of(value: Any) -> Finding:
    """A value as the name of a group: a string or an integer, compared by value.

    An integer stored as a float is the same group, whether read as a number or as a string.

    >>> [group_of(value)[0] for value in (12, 12.0, "12.0", "p12.0")]
    ['12', '12', '12', 'p12.0']
    """
    text, problem = piece_of(value)
    if text is None:
        return None, problem
    if not text.strip():
        return None, "found an empty group, expected a name or number"
    if isinstance(value, float | Decimal):
        if value != int(value):
            return None, "found a fractional number, expected a string or an integer"
        return str(int(value)), None
    return _WHOLE.sub(r"\1", text), None


def piece_of(value: Any, kinds: Sequence[type] = (str, int, float, Decimal)) -> Finding:
    """A value as part of a text, possibly empty; booleans are rejected."""
    if value is Table.ABSENT:
        return None, "is missing"
    if value is Table.UNREADABLE:
        return None, "found bytes that are not UTF-8 or a value beyond Python's range, expected a string"
    expected = "a string" if tuple(kinds) == (str,) else "a string or number"
    if value is None:
        return None, f"found null, expected {expected}"
    if type(value) not in kinds:
        return None, f"found {type(value).__name__}, expected {expected}"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        missing = ", a missing number" if math.isnan(value) else ""
        return None, f"found {value}{missing}, expected {expected}"
    text = str(value)
    if (at := text.find("\0")) >= 0:
        return None, f"found a NUL at character {at + 1}, expected text"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return None, f"found an unpaired surrogate at character {error.start + 1}, expected text"
    return text, None
