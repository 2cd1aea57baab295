"""Rows of conversations: to the columns of every split, and to examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.chat import encode_conversations
from lit_mem.data.encoding import Encoded, Encoder, attributes_of
from lit_mem.data.sources.table import Table

if TYPE_CHECKING:
    from datasets import Dataset

MESSAGES: Final = "messages"
"""The column of conversations, lists of {role, content}."""
HELD: Final = "__conversation__"
"""The column of a split that holds them as JSON."""


def conversation_rows(table: Table, label: str) -> Dataset:
    """Rows with the columns of `Corpus`: what the assistant says is the completion, what stands before it the prompt.

    These two serve the checks of the texts; what is scored is the conversation.

    Args:
        table: with a column `messages`, and `group`, if it has one.
        label: what `origin` calls it.

    Raises:
        DataError: a row holds no conversation in which the assistant speaks.
    """
    from datasets import Dataset, concatenate_datasets

    conversations = table.column(MESSAGES)
    for number, messages in zip(table.numbers, conversations, strict=True):
        if (problem := _problem(messages)) is not None:
            table.bad.add(number, f"field {MESSAGES}: {problem}")
    table.bad.check()
    origins = [f"{label}:{number}" for number in table.numbers]
    first = [next(i for i, one in enumerate(row) if one["role"] == "assistant") for row in conversations]
    columns = {
        "prompt": [_joined(row[:i]) for row, i in zip(conversations, first, strict=True)],
        "completion": [_joined([m for m in row if m["role"] == "assistant"]) for row in conversations],
        "group": [str(value) for value in table.column("group")] if "group" in table.names else origins,
        "origin": origins,
        HELD: [json.dumps(row) for row in conversations],
    }
    made = Dataset.from_dict(columns)
    kept = [name for name in table.names if name not in (*columns, MESSAGES)]
    return concatenate_datasets([made, table.keep(kept)], axis=1) if kept else made


def _problem(messages: Any) -> str | None:
    form = "expected a list of {role, content} with an assistant's text"
    if not isinstance(messages, list) or not all(isinstance(one, Mapping) for one in messages):
        return f"found {type(messages).__name__}, {form}"
    if not all(isinstance(one.get(key), str) for one in messages for key in ("role", "content")):
        return f"found a message without a role or a text, {form}"
    if not any(one["role"] == "assistant" and one["content"].strip() for one in messages):
        return f"found no text of an assistant, {form}"
    return None


def _joined(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(one["content"] for one in messages)


class ConversationEncoder(Encoder):
    """Tokenizes conversations by the tokenizer's chat template, with labels on what the assistant says."""

    def __call__(self, rows: Dataset, first_id: int, member: bool, name: str) -> list[Encoded]:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        Raises:
            DataError: the template does not fit a conversation, or no token is left to score.
        """
        if not len(rows):
            return []
        conversations = [json.loads(row) for row in rows[HELD][:]]
        made = encode_conversations(
            conversations, self.tokenizer, self.max_length, first_id, member, name, rows["origin"][:]
        )
        others = rows.remove_columns(HELD)
        known = zip(made, attributes_of(others, self.spans_column, name), rows["group"][:], strict=True)
        for example, attributes, group in known:
            if example.record is not None:
                example.record.attributes.update(attributes)
                example.record.group = group
        return made


def is_conversations(table: Table) -> bool:
    """Whether a table holds conversations, and no texts of another form."""
    return MESSAGES in table.names and not {"text", "completion"} & set(table.names)
