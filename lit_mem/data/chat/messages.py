"""Messages as a chat template reads them: checked, without keys that have no value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lit_mem.data.span_forms import Mark, marks_of
from lit_mem.errors import DataError

SPANS: Final = "spans"
"""The key of a message that marks pieces of its content."""


def checked(messages: Any, where: str) -> list[dict[str, Any]]:
    """The messages as plain dictionaries.

    What a key `spans` marks, in characters of the content, becomes lists of type, start and end. Parts of text are
    joined to one text. Arguments of tool calls that are spelled as JSON, as OpenAI has them, become
    objects, as templates expect them.

    Args:
        messages: of {role, content}; one of the assistant's may have `tool_calls` in place of a content.
        where: what the conversation is called in messages.

    Raises:
        DataError: one is not of the form.
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
            raise DataError(f"{at}: has no {' and no '.join(absent)}; expected an object {{role, content}}")
        turn["content"] = _text_of(turn.get("content"), at)
        for key in ("role", "content"):
            if not isinstance(turn.get(key), str):
                found = "nothing" if key not in turn or turn[key] is None else type(turn[key]).__name__
                raise DataError(f"{at}: found {found} as its {key}; expected a text")
        if not _is_unicode(turn["content"]):
            raise DataError(f"{at}: its content holds half a character (a lone surrogate); expected Unicode text")
        if SPANS in turn:
            turn[SPANS] = list(marks_of(turn[SPANS], len(turn["content"]), f"{at}: {SPANS}"))
        turns.append(turn)
    return turns


def marked_pieces(
    messages: Sequence[Mapping[str, Any]],
    contents: Sequence[tuple[int, int] | None],
    found_in: Callable[[str], Sequence[Mark]],
) -> list[Mark]:
    """The pieces that messages mark or that are found in them, in characters of the text of the conversation.

    Left out are those of a message whose place in the text is not known, and those in white space that the template
    trims.

    Args:
        messages: as `checked` gives them.
        contents: of each where its content stands in the text; None: not known.
        found_in: the pieces that a content shows by itself.
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
    """Whether a message is the assistant's, and not empty."""
    return turn["role"] == "assistant" and bool(turn["content"].strip() or turn.get("tool_calls"))


def _text_of(content: Any, at: str) -> Any:
    """The text of parts, and other contents as they are."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, Mapping) else None
            of = f", one of type {kind!r}" if kind in ("image", "image_url", "audio", "input_audio", "video") else ""
            raise DataError(f"{at}: found a list of parts as its content{of}; expected a text, or parts of text alone")
    return "".join(part["text"] for part in content)


def _call(call: Any, at: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        _no_calls(at)
    made = {key: value for key, value in call.items() if value is not None}
    function = made.get("function", made)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{at}: found a tool call without the name of a function; expected {{name, arguments}}")
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
    raise DataError(f"{at}: its tool_calls are not a list of objects; expected such")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
