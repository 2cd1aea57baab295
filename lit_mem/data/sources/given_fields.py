"""Which columns of rows in memory hold the texts: the default ones, or as given by an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.sources.chat_fields import ChatFields
from lit_mem.data.sources.chat_forms import recognized
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.table import Table
from lit_mem.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset


class UsualFields:
    """A column `text`; or `prompt` and `completion`, as texts; or else conversations in a form of `ChatFields`.

    Args:
        group_column: column of persons or documents; None: `group`, if it exists.
        section: section of the column options, for messages.
        reading: how the rows were read; None: defaults.
        options: names of `form` and `column` of conversations there.
    """

    def __init__(
        self,
        group_column: str | None = None,
        section: str = "data.source",
        reading: Reading | None = None,
        options: tuple[str, str] = ("form", "column"),
    ) -> None:
        self.group_column, self.section, self.reading, self.options = group_column, section, reading, options

    def dataset(self, table: Table, label: str) -> Dataset:
        """The rows with the columns of `Corpus`; `label` is the file's name in `origin`.

        Raises:
            DataError: the columns do not exist, or a row is invalid.
        """
        group = self.group_column or ("group" if "group" in table.names else None)
        found = None if "text" in table.names else recognized(table)
        pair = found is not None and found.columns == ("prompt", "completion") and not found.holds_messages(table)
        if found is not None and not pair:
            section = self.section if self.options == ("form", "column") else ""
            return ChatFields("auto", None, group, section, self.options, self.reading).dataset(table, label)
        prompt, completion = ("{prompt}", "{completion}") if pair else (None, None)
        return TextFields("text", prompt, completion, group, self.section, self.reading).dataset(table, label)


Fields = TextFields | ChatFields | UsualFields | Mapping[str, Any] | str | None
"""Options of `TextFields` or `ChatFields` as a mapping, or the name of the text column. A mapping may also have
options of reading: `delimiter`, `encoding`, `skip_unusable`."""

_TEXTS: Final = ("text_column", "prompt_template", "completion_template", "group_column")
_CHATS: Final = ("form", "column", "group_column")
_READING: Final = ("delimiter", "encoding", "skip_unusable")


def fields_of(given: Fields) -> TextFields | ChatFields | UsualFields:
    """The options as an instance, from a mapping, or from the name of the text column; None: the default columns.

    With `form` or `column` the rows are read as conversations; with only `group_column` the default columns are read.

    Raises:
        ConfigError: an option name is unknown, or templates are malformed.

    >>> fields_of("note").text_column, fields_of({"text_column": "note", "group_column": "patient"}).group_column
    ('note', 'patient')
    >>> fields_of({"form": "sharegpt"}).form
    'sharegpt'
    """
    if isinstance(given, TextFields | ChatFields | UsualFields):
        return given
    if given is None:
        return UsualFields(section="fields", reading=Reading(section="fields"))
    options: dict[str, Any] = {"text_column": given} if isinstance(given, str) else dict(given)
    chats = bool({"form", "column"} & options.keys())
    names = _CHATS if chats else _TEXTS
    if unknown := [name for name in options if name not in (*names, *_READING)]:
        known = dict.fromkeys((*names, *_READING) if chats else (*names, *_CHATS, *_READING))
        raise ConfigError(f"fields has no option {unknown[0]!r}; expected one of {', '.join(known)}")
    reading = Reading(**{name: options.pop(name) for name in _READING if name in options}, section="fields")
    if options.keys() <= {"group_column"}:
        return UsualFields(**options, section="fields", reading=reading)
    kind = ChatFields if chats else TextFields
    return kind(**options, section="fields", reading=reading)
