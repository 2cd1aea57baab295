"""Validate messages for a chat template, dropping keys without a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lit_mem.data.span_forms import Mark, marks_of
from lit_mem.errors import DataError

SPANS: Final = "spans"
"""The key of a message with the spans of its content."""


def checked(messages: Any, where: str) -> list[dict[str, Any]]:
    """The validated messages as plain dictionaries.

    The value of a key `spans`, in characters of the content, becomes lists of type, start and end. Text parts are
    joined. Arguments of tool calls given as JSON strings, as by OpenAI, become objects, as templates expect them.

    Args:
        messages: of {role, content}; an assistant message may have `tool_calls` instead of content.
        where: name of the conversation, for messages.

    Raises:
        DataError: a message is malformed.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise DataError(f"{where}: found {type(messages).__name__}; expected a list of messages {{role, content}}")
    turns = []
    for number, message in enumerate(messages, start=1):
        at = f"{where}: message {number}"
        if not isinstance(message, Mapping):
            raise DataError(f"{at}: found {type(message).__name__}; expected an object {{role, content}}")
        turn = {key: value for key, value in message.items() if value is not None}
        if calls := turn.pop("tool_calls", None):
            turn["tool_calls"] = [_call(call, at) for call in calls] if isinstance(calls, list) else _no_calls(at)
            turn.setdefault("content", "")
        if absent := [key for key in ("role", "content") if key not in turn and key not in message]:
            raise DataError(f"{at}: lacks {' and '.join(absent)}; expected an object {{role, content}}")
        turn["content"] = _text_of(turn.get("content"), at)
        for key in ("role", "content"):
            if not isinstance(turn.get(key), str):
                found = "nothing" if key not in turn or turn[key] is None else type(turn[key]).__name__
                raise DataError(f"{at}: found {found} as its {key}; expected a string")
        if not _is_unicode(turn["content"]):
            raise DataError(f"{at}: its content has a lone surrogate; expected Unicode text")
        if SPANS in turn:
            turn[SPANS] = list(marks_of(turn[SPANS], len(turn["content"]), f"{at}: {SPANS}"))
        turns.append(turn)
    return turns


def marked_pieces(
    messages: Sequence[Mapping[str, Any]],
    contents: Sequence[tuple[int, int] | None],
    found_in: Callable[[str], Sequence[Mark]],
) -> list[Mark]:
    """Marked and detected spans of messages, in characters of the conversation's text.

    Skips messages whose position in the text is unknown, and spans in white space that the template trims.

    Args:
        messages: as returned by `checked`.
        contents: position of each content in the text; None: unknown.
        found_in: detects spans in a content.
    """
    found = list[Mark]()
    for message, place in zip(messages, contents, strict=True):
        content = message["content"]
        if place is None:
            continue
        shift = place[0] - (len(content) - len(content.lstrip()) if place[1] - place[0] < len(content) else 0)
        for kind, start, end in [*message.get(SPANS, ()), *found_in(content)]:
            if place[0] <= start + shift and end + shift <= place[1]:
                found.append((kind, start + shift, end + shift))
    return found


def speaks(turn: Mapping[str, Any]) -> bool:
    """Whether a message is a non-empty assistant message."""
    return turn["role"] == "assistant" and bool(turn["content"].strip() or turn.get("tool_calls"))


def _text_of(content: Any, at: str) -> Any:
    """The joined text of parts; other contents unchanged."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else None
            of = f", one of type {kind!r}" if kind in ("image", "image_url", "audio", "input_audio", "video") else ""
            raise DataError(f"{at}: found a list of parts as its content{of}; expected a string, or text parts only")
    return "".join(part["text"] for part in content)


def _call(call: Any, at: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        _no_calls(at)
    made = {key: value for key, value in call.items() if value is not None}
    function = made.get("function", made)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{at}: found a tool call without a function name; expected {{name, arguments}}")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments)
        except (ValueError, RecursionError):
            read = arguments
        arguments = read if isinstance(read, dict) else arguments
    function = {key: value for key, value in function.items() if value is not None} | {"arguments": arguments}
    return made | {"function": function} if "function" in made else function


def _no_calls(at: str) -> list[Any]:
    raise DataError(f"{at}: its tool_calls are not a list of objects; expected a list of {{name, arguments}}")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
