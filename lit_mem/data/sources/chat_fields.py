"""Convert rows of conversations to the columns of every split."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.chat.messages import checked, speaks
from lit_mem.data.sources.chat_forms import ChatForm, Layout, Messages, layout_of
from lit_mem.data.sources.fields import checked_column, group_of, is_index, split_of, usable_rows
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.stored import StoredColumn
from lit_mem.data.sources.table import Table, shown
from lit_mem.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

HELD: Final = "__conversation__"
"""The column of conversations, as JSON."""
TOOLS: Final = "__tools__"
"""The column of functions that each may call, as JSON; "" if there are none."""

_TOOLS_COLUMN: Final = "tools"


class ChatFields:
    """Which columns hold the conversations, and which one the group.

    Args:
        form: "auto", detected from the columns, or one of `ChatForm`.
        column: column of conversations, if the form has one; None: detected by name and content.
        group_column: rows with the same value (a patient, a customer) stay on one side of every split.
        section: section of these options, for messages; "" for options of a command.
        options: names of `form` and `column` there.
        reading: how the rows were read: whether unusable ones are skipped; None: no such option.
    """

    def __init__(
        self,
        form: ChatForm = "auto",
        column: str | None = None,
        group_column: str | None = None,
        section: str = "data.source",
        options: tuple[str, str] = ("form", "column"),
        reading: Reading | None = None,
    ) -> None:
        self.reading = reading
        first, second = (f"{section}.{name}" if section else f"--{name}" for name in options)
        self.options = first, second
        self.form, self.column, self.group_column, self.section = form, column, group_column, section

    def dataset(self, table: Table, label: str) -> Dataset:
        """Check every row and build the split; the detected form is logged.

        Assistant turns are the completion, everything else the prompt: these two serve the data checks; the
        conversation is what is trained on and scored.

        Args:
            table: the rows of one file.
            label: its name in `origin`, "train.jsonl" in "train.jsonl:17".

        Raises:
            DataError: there are no columns of conversations, or a row has no assistant turn.
            ConfigError: `form` is unknown.
        """
        found = layout_of(table, self.form, self.column, self.options)
        log.info("%s: read as conversations of form %s; set %s to change it.", table.file, found, self.options[0])
        return self._read(table, label, found)

    def _read(self, table: Table, label: str, found: Layout) -> Dataset:
        wanted = found.read
        take = found.messages()
        held, prompts, completions = StoredColumn(), StoredColumn(), StoredColumn()
        for number, *values in zip(table.numbers, *(table.column(name) for name in wanted), strict=True):
            try:
                messages = _usable(take(dict(zip(wanted, values, strict=True))))
            except (ValueError, DataError) as error:
                table.bad.add(number, f"field {shown(found.columns[0])}: {error}")
                messages = []
            held.append(json.dumps(messages))
            prompts.append(_joined(one for one in messages if one["role"] != "assistant"))
            completions.append(_joined(one for one in messages if one["role"] == "assistant"))
        groups, tools = self._groups(table), self._tools(table)
        usable = usable_rows(table, self.reading)
        origins = StoredColumn(f"{label}:{number}" for number in table.numbers)
        columns = {
            "prompt": prompts,
            "completion": completions,
            "group": origins if groups is None else groups,
            "origin": origins,
            HELD: held,
            TOOLS: tools,
        }
        used = {*columns, *wanted, _TOOLS_COLUMN}
        kept = [name for name in table.names if name not in used and not is_index(name)]
        return split_of(columns, table, kept, usable)

    def _groups(self, table: Table) -> StoredColumn | None:
        """(N,) names of groups; None if there are none."""
        if self.group_column is None:
            return None
        table.require({self.group_column: f"{self.section}.group_column" if self.section else "--group_column"})
        return checked_column(table, self.group_column, group_of)

    @staticmethod
    def _tools(table: Table) -> StoredColumn:
        """(N,) functions that each conversation may call, as JSON; "" if there are none."""
        found = StoredColumn()
        given = table.column(_TOOLS_COLUMN) if _TOOLS_COLUMN in table.names else repeat(None, len(table.numbers))
        for number, value in zip(table.numbers, given, strict=True):
            try:
                tools = json.loads(value) if isinstance(value, str) and value.strip() else value
            except (ValueError, RecursionError):
                tools = 0
            if tools is None or tools is Table.ABSENT or tools == "" or tools == []:
                found.append("")
                continue
            if not isinstance(tools, list) or not all(isinstance(one, Mapping) for one in tools):
                table.bad.add(number, f"field {shown(_TOOLS_COLUMN)}: is not a list of objects, expected one")
            found.append(json.dumps(tools))
        return found


def in_chatml(rows: Dataset) -> list[str]:
    """(N,) conversations as one text each, in a format about as long as with most chat templates."""
    return [
        "".join(f"<|im_start|>{one['role']}\n{_said(one)}<|im_end|>\n" for one in json.loads(row)) for row in rows[HELD]
    ]


def _usable(messages: Messages) -> Messages:
    """The validated messages.

    Raises:
        DataError: a message is malformed, or there is no assistant text.
    """
    made = checked(messages, "the conversation")
    if not any(speaks(turn) for turn in made):
        raise DataError("found no assistant message with text, expected at least one")
    return made


def _joined(messages: Any) -> str:
    return "\n".join(_said(one) for one in messages)


def _said(message: Mapping[str, Any]) -> str:
    calls: Sequence[Any] = message.get("tool_calls") or ()
    return str(message["content"]) + (json.dumps(calls) if calls else "")
