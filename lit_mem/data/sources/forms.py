"""Detect data formats that are not read as texts, for one-line messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_CHATS: Final = (("role", "content"), ("from", "value"))
LOOKED_AT: Final = 20
"""Number of values used to detect a column's content."""


def chat_of(values: Sequence[Any]) -> str | None:
    """Description of a column of conversations, or None for other columns.

    >>> chat_of([[{"role": "user", "content": "Hello"}]]), chat_of(["Hello"]), chat_of([])
    ('conversations, lists of {role, content}', None, None)
    """
    for role, content in _CHATS:
        if values and all(_is_chat(value, role, content) for value in values[:LOOKED_AT]):
            return f"conversations, lists of {{{role}, {content}}}"
    return None


def _is_chat(value: Any, role: str, content: str) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and role in turn and (content in turn or "tool_calls" in turn) for turn in value
    )
