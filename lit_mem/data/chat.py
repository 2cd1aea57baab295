"""Conversations as scored examples: the tokenizer's chat template over the whole, and where assistants speak in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from lit_mem.data.cut_texts import CutTexts
from lit_mem.data.encoding import Encoded, Offsets
from lit_mem.errors import DataError
from lit_mem.files.untrusted import panics_raised
from lit_mem.types import IGNORED, Record

Spans = list[tuple[int, int]]
"""Start and end in characters, in order, apart from each other."""


def conversation(
    messages: Sequence[Mapping[str, Any]], tokenizer: Any, where: str = "conversation"
) -> tuple[str, Spans]:
    """A conversation as the text that the model reads, and where the contents of the assistant's turns stand in it.

    The chat template is applied to the whole conversation, never to a single turn, as it may add a system prompt, trim
    contents or treat the last turn in its own way. It is applied again with a mark in place of each of the assistant's
    contents: what stands in the text where the marks stand are the contents, as far as the template shows them.

    Args:
        messages: of {role, content}, each content a text. Further keys reach the template, where they have a value.
        tokenizer: a Hugging Face tokenizer with a chat template.
        where: what the conversation is called in messages.

    Returns:
        The text, with a BOS token in it where the template writes one, and the spans of the assistant's contents
        without the white space that the template trims. A turn without a character that is not white space has none.

    Raises:
        DataError: a message is not of this form, no assistant speaks, the template rejects the conversation, or does
            not show a turn of the assistant's whole and once. The message holds no text of the conversation.
    """
    turns = _checked(messages, where)
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the tokenizer has no chat template; expected the tokenizer of a chat model, or tokenizer.chat_template set"
        )
    speaks = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn["content"].strip()]
    if not speaks:
        raise DataError(f"{where}: no message with role assistant has a text; expected at least one to score")
    try:
        text = _rendered(turns, tokenizer)
    except _TemplateError as error:
        raise DataError(f"{where}: the chat template rejects it: {error}") from None
    spans = _at_marks(text, turns, speaks, tokenizer)
    return text, _between_prefixes(text, turns, speaks, tokenizer, where) if spans is None else spans


def encode_conversations(
    rows: Sequence[Sequence[Mapping[str, Any]]],
    tokenizer: Any,
    max_length: int,
    first_id: int,
    member: bool,
    name: str,
    origins: Sequence[str] | None = None,
) -> list[Encoded]:
    """Tokenize conversations, with labels on the contents of the assistant's turns only.

    A token that reaches over the start or the end of a content counts to it. The end of a turn is the template's: it
    is neither trained on nor scored. What is not the assistant's is the model's prompt.

    Args:
        rows: (N,) conversations, lists of {role, content}.
        tokenizer: a fast Hugging Face tokenizer with a chat template.
        max_length: longest example in tokens; what goes beyond is cut, and counted in one warning.
        first_id: ids count up from here.
        member: whether the conversations are in the fine-tuning set.
        name: of the set, for messages, such as "training".
        origins: (N,) where each row came from. None: the set's name and the row's number, from 1.

    Returns:
        (N,) examples. The text of their record is the assistant's contents as far as they are scored, joined by line
        ends; its prompt is what stands before the first one.

    Raises:
        DataError: as for `conversation`, naming the row; no token of the assistant's is left within `max_length`; or
            the tokenizer has no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError("this tokenizer does not give the place of its tokens in the text; expected a fast one")
    if origins is None:
        origins = [f"{name}:{number}" for number in range(1, len(rows) + 1)]
    if not rows:
        return []
    rendered = [conversation(row, tokenizer, where) for row, where in zip(rows, origins, strict=True)]
    with panics_raised("the tokenizer"):
        encoded = tokenizer(
            [text for text, _ in rendered],
            add_special_tokens=False,  # the template writes them
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
    examples, cut = [], CutTexts(max_length)
    for i, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        text, spans = rendered[i]
        cut.add(len(ids))
        own = list(_within(offsets, spans))
        labels = [token if mine else IGNORED for token, mine in zip(ids, own, strict=True)][:max_length]
        labels[:1] = [IGNORED]
        if not any(label != IGNORED for label in labels):
            first = own.index(True) + 1 if any(own) else "none"
            raise DataError(
                f"{origins[i]}: no token to train on and score is left: the conversation is {len(ids)} tokens, the "
                f"assistant's first is {first}, data.max_length is {max_length}, and the first token is never scored"
            )
        reached = max(end for _, end in offsets[:max_length])
        record = Record(
            text="\n".join(text[start : min(end, reached)] for start, end in spans if start < reached),
            origin=origins[i],
            prompt=text[: spans[0][0]],
        )
        kept = torch.tensor(ids[:max_length])
        examples.append(Encoded(kept, torch.tensor(labels), first_id + i, member, record=record))
    cut.warn(f"{name} conversations")
    return examples


def _within(offsets: Offsets, spans: Spans) -> Iterator[bool]:
    """For each token whether it overlaps a span."""
    current = 0
    for start, end in offsets:
        while current < len(spans) and spans[current][1] <= start:
            current += 1
        yield current < len(spans) and end > spans[current][0]


def _checked(messages: Any, where: str) -> list[dict[str, Any]]:
    """The messages as plain dictionaries, without keys that have no value.

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
        if absent := [key for key in ("role", "content") if key not in message]:
            raise DataError(f"{at}: has no {' and no '.join(absent)}; expected an object {{role, content}}")
        if message.get("tool_calls"):
            raise DataError(f"{at}: has tool calls; expected a text as its content alone")
        for key in ("role", "content"):
            if not isinstance(message[key], str):
                found = {"NoneType": "nothing", "list": "a list, as of parts with images,"}
                kind = type(message[key]).__name__
                raise DataError(f"{at}: found {found.get(kind, kind)} as its {key}; expected a text")
        if not _is_unicode(message["content"]):
            raise DataError(f"{at}: its content holds half a character (a lone surrogate); expected Unicode text")
        turns.append({key: value for key, value in message.items() if value is not None})
    return turns


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _TemplateError(Exception):
    """A template rejects what it is applied to."""


def _rendered(turns: Sequence[Mapping[str, Any]], tokenizer: Any, ask: bool = False) -> str:
    """The text of some messages; `ask`: up to where the assistant would speak next.

    Raises:
        _TemplateError: the template fails. Its reason is given where the template itself spells it, and may hold text
            of the messages where it does not.
    """
    try:
        text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=ask)
    except Exception as error:  # what a template computes with messages can fail in any way
        reason = str(error)
        spelled = bool(reason) and reason in str(tokenizer.chat_template)
        raise _TemplateError(" ".join(reason.split())[:200] if spelled else type(error).__name__) from None
    return text


def _at_marks(text: str, turns: list[dict[str, Any]], speaks: list[int], tokenizer: Any) -> Spans | None:
    """The spans, or None where the text is not the one with marks, with contents in place of these."""
    stem = "mark"
    while stem in text:
        stem += "q"
    marks = {i: f"{stem}x{i}x" for i in speaks}
    try:
        marked = _rendered(
            [turn | {"content": marks.get(i, turn["content"])} for i, turn in enumerate(turns)], tokenizer
        )
    except _TemplateError:
        return None
    parts = re.split(f"({stem}x[0-9]+x)", marked)
    if parts[1::2] != list(marks.values()):
        return None
    position, spans = len(parts[0]), []
    for i, after in zip(speaks, parts[2::2], strict=True):
        content = turns[i]["content"]
        forms = (content, content.strip(), content.lstrip(), content.rstrip())
        shown = next((form for form in forms if text.startswith(form + after, position)), None)
        if shown is None:
            return None
        spans.append((position, position + len(shown)))
        position += len(shown) + len(after)
    return spans if text.startswith(parts[0]) and position == len(text) else None


def _between_prefixes(text: str, turns: list[dict[str, Any]], speaks: list[int], tokenizer: Any, where: str) -> Spans:
    """The spans by the text of the messages before a turn and up to it, for templates that read into contents.

    Raises:
        DataError: a content does not stand there whole and once.
    """
    spans = []
    for i in speaks:
        content = turns[i]["content"].strip()
        before = _prefix(text, [(turns[:i], True), (turns[:i], False)], tokenizer)
        upto = _prefix(text, [(turns[: i + 1], False)], tokenizer)
        start = -1 if before is None or upto is None else text.find(content, before, upto)
        if start < 0 or text.rfind(content, before, upto) != start:
            raise DataError(
                f"{where}: message {i + 1}: the chat template does not show the assistant's content whole and once; "
                "expected a template that leaves what was said as it is, or contents in the form that it gives them"
            )
        spans.append((start, start + len(content)))
    return spans


def _prefix(text: str, ways: list[tuple[list[dict[str, Any]], bool]], tokenizer: Any) -> int | None:
    """How long the text of the first messages is that is a prefix of the whole; None where there is no such."""
    for turns, ask in ways:
        try:
            start = _rendered(turns, tokenizer, ask) if turns else ""
        except _TemplateError:
            continue
        if text.startswith(start):
            return len(start)
    return None
