"""Detect conversation columns in common formats, and convert them to messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lit_mem.data.sources.forms import chat_of
from lit_mem.data.sources.table import Table, listed, shown
from lit_mem.errors import ConfigError, DataError

ChatForm = Literal["auto", "messages", "sharegpt", "alpaca", "dolly", "prompt_completion", "question_answer"]

Row = Mapping[str, Any]
Messages = list[dict[str, Any]]

_ROLES: Final = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bot": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant", "system": "system",
    "tool": "tool", "function_call": "assistant", "observation": "tool", "function": "tool", "developer": "developer",
}  # fmt: skip
_SYSTEMS: Final = ("system", "system_prompt")
_HISTORY: Final = "history"
_CONVERSATIONS: Final[tuple[str, ...]] = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog")


@dataclass(frozen=True)
class Pairs:
    """A format with one question and one answer per row.

    Attributes:
        given: columns of the user message; all except the first are optional.
        answer: candidate names of the assistant column; the first existing one is used.
    """

    given: tuple[str, ...]
    answer: tuple[str, ...]


_PAIRS: Final[dict[str, Pairs]] = {
    "dolly": Pairs(("instruction", "context"), ("response",)),
    "alpaca": Pairs(("instruction", "input"), ("output", "response")),
    "prompt_completion": Pairs(("prompt",), ("completion", "response")),
    "question_answer": Pairs(("question", "context"), ("answer",)),
}


@dataclass(frozen=True)
class Layout:
    """The columns of a file's conversations.

    Attributes:
        form: one of `ChatForm`, not "auto".
        columns: columns in order of use; the last of a pair is the assistant's.
        system: column of system prompts, or None.
        history: column of lists of previous [question, answer] pairs, or None.
        spans: span columns of a pair: `spans` of the answer, `prompt_spans` of the question.
    """

    form: str
    columns: tuple[str, ...]
    system: str | None = None
    history: str | None = None
    spans: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.columns, *(name for name in (self.system, self.history, *self.spans) if name is not None))

    def __str__(self) -> str:
        """Description for the log."""
        more = "" if self.system is None else f", and column {shown(self.system)} as the system message"
        if self.form in _PAIRS:
            users, assistant = listed(self.columns[:-1]), shown(self.columns[-1])
            return f"{self.form} (user columns {users}, assistant column {assistant}{more})"
        return f"{self.form} (column {shown(self.columns[0])}{more})"

    def holds_messages(self, table: Table) -> bool:
        """Whether the prompts are lists of messages, as in TRL, instead of texts."""
        return any(isinstance(value, list) for value in table.first(self.columns[0]))

    def messages(self) -> Callable[[Row], Messages]:
        """A function from a row's values by column to its messages.

        For a row of another form it raises `ValueError` with what was found and what was expected.
        """
        if self.form in _PAIRS:
            return self._pair
        return self._list

    def _list(self, row: Row) -> Messages:
        value = row[self.columns[0]]
        if isinstance(value, str):
            value = _decoded(value)
        if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
            raise ValueError(f"found {_kind(value)}, expected a list of messages")
        made = [_message(one) for one in value]
        return _with_system(made, row.get(self.system) if self.system else None)

    def _pair(self, row: Row) -> Messages:
        *given, last = (row.get(name) for name in self.columns)
        if isinstance(given[0], list) or isinstance(last, list):  # already messages, as in TRL
            both = [_decoded(one) if isinstance(one, str) else one for one in (given[0], last)]
            lists = [one for one in both if isinstance(one, list) and all(isinstance(m, Mapping) for m in one)]
            if len(lists) < 2:
                raise ValueError("found a list of messages and another type, expected both as messages")
            made = [_message(one) for part in lists for one in part]
        else:
            asked = [_text(one) for one in given]
            if not asked[0].strip():
                raise ValueError("found no prompt text, expected one")
            content = "\n\n".join(part for part in asked if part.strip())
            made = [{"role": "user", "content": content}, {"role": "assistant", "content": _text(last)}]
            for message, column in zip(made, ("prompt_spans", "spans"), strict=True):
                marks = row.get(column, Table.ABSENT)
                if marks is not Table.ABSENT and (column == "spans" or len(given) == 1):
                    message["spans"] = marks
            made = [*_before(row.get(self.history) if self.history else None), *made]
        return _with_system(made, row.get(self.system) if self.system else None)


def layout_of(table: Table, form: ChatForm, column: str | None, options: tuple[str, str]) -> Layout:
    """Determine the layout of a file's conversations.

    Args:
        table: the rows.
        form: "auto": detected from the columns.
        column: column of conversations, for forms that have one; None: detected by name and content.
        options: names of `form` and `column` in messages.

    Raises:
        ConfigError: the form is unknown, or `column` is given with a form of pairs.
        DataError: the columns do not exist.
    """
    known = ("auto", "messages", "sharegpt", *_PAIRS)
    if form not in known:
        raise ConfigError(f"{options[0]} is {form!r}; expected one of {', '.join(known)}")
    if form in _PAIRS and column is not None:
        raise ConfigError(f"{options[1]} is {column!r}, but {options[0]} {form} has fixed columns")
    if column is not None:
        table.require({column: f"{options[1]}"})
    found = recognized(table, form, column)
    if found is None:
        table.bad.check()
        wanted = "conversations" if form == "auto" else f"conversations of form {form} ({options[0]})"
        raise DataError(
            f"{table.file}: no columns of {wanted}; expected a column of lists of {{role, content}} or of {{from, "
            f"value}}, or a pair such as 'prompt' and 'completion'; found: {listed(table.names)}"
        )
    return found


def recognized(table: Table, form: ChatForm = "auto", column: str | None = None) -> Layout | None:
    """The layout of a form, or the first detected one; None if there is none."""
    system = next((name for name in _SYSTEMS if name in table.names), None)
    if column is not None:
        held = _held_by(table, column) if form == "auto" else form
        return None if held is None else Layout(held, (column,), system)
    lists = ("auto", "messages", "sharegpt")
    for name in [name for name in _CONVERSATIONS if name in table.names] if form in lists else ():
        if (held := _held_by(table, name)) is not None and form in ("auto", held):
            return Layout(held, (name,), system)
    found = [one for pair in _PAIRS if form in ("auto", pair) and (one := _pair_of(table, pair, system)) is not None]
    if found or form not in lists:
        return max(found, key=lambda one: len(one.columns), default=None)  # the first one that uses most columns
    for name in table.names:
        if (held := _held_by(table, name)) is not None and form in ("auto", held):
            return Layout(held, (name,), system)
    return None


def _pair_of(table: Table, form: str, system: str | None) -> Layout | None:
    """The layout of a form of pairs; None if its columns do not exist."""
    pair, names = _PAIRS[form], table.names
    answer = next((name for name in pair.answer if name in names), None)
    if pair.given[0] not in names or answer is None:
        return None
    given = tuple(name for name in pair.given if name in names)
    history = _HISTORY if form == "alpaca" and _HISTORY in names else None
    return Layout(
        form, (*given, answer), system, history, tuple(one for one in ("spans", "prompt_spans") if one in names)
    )


def _held_by(table: Table, name: str) -> str | None:
    """The form of most of a column's first values, so that a broken row is reported as such; None: no form."""
    values = [_decoded(value) if isinstance(value, str) else value for value in table.first(name)]
    forms = [form for value in values if value and (form := chat_of([value])) is not None]
    if not forms or 2 * len(forms) < sum(bool(value) and value is not Table.ABSENT for value in values):
        return None
    return "sharegpt" if "from" in forms[0] else "messages"


def _message(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a message of either form to {role, content}."""
    if "role" in given or "from" not in given:
        role = given.get("role")
        same = _ROLES.get(role.strip().lower(), role) if isinstance(role, str) else role
        return dict(given) | ({} if role is None else {"role": same})
    role, value = given["from"], given.get("value")
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise ValueError(f"found a message from {_name(role)}, expected one of {', '.join(_ROLES)}")
    kept = {key: one for key, one in given.items() if key not in ("from", "value")}
    return {"role": known, "content": value} | kept


def _before(history: Any) -> Messages:
    """Convert a list of [question, answer] to messages."""
    if history is None or history is Table.ABSENT:
        return []
    pairs = history if isinstance(history, list) else [history]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"found {_kind(history)} as its history, expected a list of [question, answer]")
    roles = ("user", "assistant")
    return [{"role": role, "content": _text(said)} for pair in pairs for role, said in zip(roles, pair, strict=True)]


def _name(role: Any) -> str:
    return "nobody" if role is None else "somebody else" if isinstance(role, str) else _kind(role)


def _with_system(messages: Messages, system: Any) -> Messages:
    if not isinstance(system, str) or not system.strip() or (messages and messages[0].get("role") == "system"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _text(value: Any) -> str:
    if value is None or value is Table.ABSENT:
        return ""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"found {_kind(value)}, expected a string")
    return str(value)


def _decoded(value: str) -> Any:
    """Decode JSON of a list, as in csv files; None for anything else."""
    if not value.lstrip().startswith("["):
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _kind(value: Any) -> str:
    if value is None or value is Table.ABSENT:
        return "nothing"
    return {"str": "a string", "dict": "an object", "Mapping": "an object"}.get(
        type(value).__name__, type(value).__name__
    )
