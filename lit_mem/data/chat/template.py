"""A chat template applied to whole conversations, and where assistants speak in what it makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple

from lit_mem.data.chat.messages import speaks
from lit_mem.errors import DataError

_PROBE: Final = ("Question", "Answer")


class Turn(NamedTuple):
    """Where a message of the assistant's stands in the text of a conversation, in characters.

    Attributes:
        start: of its content.
        end: after its content.
        stop: after what the template writes to end the turn; `end` where it writes nothing.
    """

    start: int
    end: int
    stop: int


class Rendered(NamedTuple):
    """A conversation as the model reads it.

    Attributes:
        text: with a BOS token in it where the template writes one.
        turns: of the assistant's, in order, but for empty ones.
    """

    text: str
    turns: list[Turn]


class TemplateError(Exception):
    """A template rejects what it is applied to."""


class ChatTemplate:
    """A template is applied to the whole conversation, never to one turn.

    For it may add a system prompt, trim contents or treat the last turn in its own way. It is applied again with a
    mark in place of each of the assistant's contents: what stands in the text where the marks stand are the contents,
    as far as the template shows them.

    Args:
        tokenizer: a Hugging Face tokenizer.
        text: the template; None: the tokenizer's own.

    Raises:
        DataError: there is none.
    """

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        if text is None and not getattr(tokenizer, "chat_template", None):
            raise DataError(
                "the tokenizer has no chat template; expected the tokenizer of a chat model, or data.chat.template: a "
                "file with one, or asset:chatml"
            )
        self.tokenizer, self._text = tokenizer, text

    @cached_property
    def marks_turns(self) -> bool:
        """Whether it has `{% generation %}` blocks, which say what of a conversation is the assistant's."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self._spelled()) is not None

    @cached_property
    def end(self) -> str:
        """What it writes after an assistant's content to end the turn: "<|im_end|>", " </s>"; "" where it does not."""
        user, assistant = _PROBE
        try:
            text = self.text([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}])
        except TemplateError:
            return str(self.tokenizer.eos_token or "")
        tail = text[text.rindex(assistant) + len(assistant) :] if assistant in text else ""
        named = {str(token) for token in self.tokenizer.all_special_tokens}
        named |= {str(token) for token in getattr(self.tokenizer, "added_tokens_decoder", {}).values()}
        first = min(((tail.find(name), name) for name in named if name and name in tail), default=None)
        return tail.rstrip() if first is None else tail[: first[0] + len(first[1])]

    def text(self, turns: Sequence[Mapping[str, Any]], ask: bool = False, tools: Any = None) -> str:
        """The text of some messages.

        Args:
            turns: as `messages.checked` gives them.
            ask: go on to where the assistant would speak next.
            tools: what functions the conversation may call.

        Raises:
            TemplateError: the template fails. Its reason is given where the template itself spells it, and may hold
                text of the messages where it does not.
        """
        try:
            text: str = self.tokenizer.apply_chat_template(
                list(turns), tools=tools, tokenize=False, add_generation_prompt=ask, chat_template=self._text
            )
        except Exception as error:  # what a template computes with messages can fail in any way
            reason = str(error)
            spelled = bool(reason) and reason in self._spelled()
            raise TemplateError(" ".join(reason.split())[:200] if spelled else type(error).__name__) from None
        return text

    def mask(self, turns: Sequence[Mapping[str, Any]], tools: Any = None) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation, and which of them the template itself marks as the assistant's.

        Raises:
            TemplateError: the template fails.
        """
        try:
            whole = self.tokenizer.apply_chat_template(
                list(turns), tools=tools, chat_template=self._text, return_assistant_tokens_mask=True, return_dict=True
            )
        except Exception as error:
            raise TemplateError(type(error).__name__) from None
        return list(whole["input_ids"]), [bool(own) for own in whole["assistant_masks"]]

    def rendered(self, turns: list[dict[str, Any]], where: str, tools: Any = None) -> Rendered:
        """A conversation as the model reads it, and the assistant's turns in it.

        Args:
            turns: as `messages.checked` gives them.
            where: what the conversation is called in messages.
            tools: what functions it may call.

        Raises:
            DataError: no assistant speaks, the template rejects the conversation, or does not show a turn of the
                assistant's whole and once. The message holds no text of the conversation.
        """
        speaking = [i for i, turn in enumerate(turns) if speaks(turn)]
        if not speaking:
            raise DataError(f"{where}: no message with role assistant has a text; expected at least one to score")
        try:
            text = self.text(turns, tools=tools)
        except TemplateError as error:
            raise DataError(f"{where}: the chat template rejects it: {error}") from None
        calls = any(turns[i].get("tool_calls") for i in speaking)
        spans = None if calls else self._at_marks(text, turns, speaking, tools)
        spans = self._between_prefixes(text, turns, speaking, tools, where) if spans is None else spans
        return Rendered(text, [Turn(start, end, self._stop(text, end)) for start, end in spans])

    def agrees(self, rendered: Rendered, turns: list[dict[str, Any]], tools: Any = None) -> bool:
        """Whether what the model is prompted with for each of the assistant's turns is what stands before it.

        A template may write other things before a turn that is to be generated than before the same turn in training.
        """
        speaking = [i for i, turn in enumerate(turns) if speaks(turn)]
        for i, turn in zip(speaking, rendered.turns, strict=True):
            if i == 0:
                continue  # there is nothing to prompt with
            before = self._prefix(rendered.text, [(turns[:i], True)], tools)
            if before is None or rendered.text[before : turn.start].strip():
                return False
        return True

    def _spelled(self) -> str:
        return self._text if self._text is not None else str(self.tokenizer.chat_template)

    def _stop(self, text: str, end: int) -> int:
        """After the end of a turn whose content ends there."""
        wanted = self.end.strip()
        if not wanted:
            return end
        rest = text[end:]
        at = len(rest) - len(rest.lstrip())
        return end + at + len(wanted) if rest.startswith(wanted, at) else end

    def _at_marks(
        self, text: str, turns: list[dict[str, Any]], speaking: list[int], tools: Any
    ) -> list[tuple[int, int]] | None:
        """The contents, or None where the text is not the one with marks, with contents in place of these."""
        stem = "mark"
        while stem in text:
            stem += "q"
        marks = {i: f"{stem}x{i}x" for i in speaking}
        try:
            marked = self.text(
                [turn | {"content": marks.get(i, turn["content"])} for i, turn in enumerate(turns)], tools=tools
            )
        except TemplateError:
            return None
        parts = re.split(f"({stem}x[0-9]+x)", marked)
        if parts[1::2] != list(marks.values()):
            return None
        position, spans = len(parts[0]), []
        for i, after in zip(speaking, parts[2::2], strict=True):
            content = turns[i]["content"]
            forms = (content, content.strip(), content.lstrip(), content.rstrip())
            shown = next((form for form in forms if text.startswith(form + after, position)), None)
            if shown is None:
                return None
            spans.append((position, position + len(shown)))
            position += len(shown) + len(after)
        return spans if text.startswith(parts[0]) and position == len(text) else None

    def _between_prefixes(
        self, text: str, turns: list[dict[str, Any]], speaking: list[int], tools: Any, where: str
    ) -> list[tuple[int, int]]:
        """The contents by the text of the messages before a turn and up to it, for templates that read into contents.

        A turn with tool calls is all that the template writes of it.

        Raises:
            DataError: a content does not stand there whole and once.
        """
        spans = []
        for i in speaking:
            content = turns[i]["content"].strip()
            before = self._prefix(text, [(turns[:i], True), (turns[:i], False)], tools)
            upto = self._prefix(text, [(turns[: i + 1], False)], tools)
            if turns[i].get("tool_calls") and before is not None and upto is not None and before < upto:
                whole = text[before:upto].rstrip().removesuffix(self.end.strip()).rstrip()
                spans.append((before, before + len(whole)))
                continue
            start = -1 if before is None or upto is None else text.find(content, before, upto)
            if start < 0 or text.rfind(content, before, upto) != start:
                raise DataError(
                    f"{where}: message {i + 1}: the chat template does not show the assistant's content whole and "
                    "once; expected a template that leaves what was said as it is, or contents in the form that it "
                    "gives them"
                )
            spans.append((start, start + len(content)))
        return spans

    def _prefix(self, text: str, ways: list[tuple[list[dict[str, Any]], bool]], tools: Any) -> int | None:
        """How long the text of the first messages is that is a prefix of the whole; None where there is no such."""
        for turns, ask in ways:
            try:
                start = self.text(turns, ask, tools) if turns else ""
            except TemplateError:
                continue
            if text.startswith(start):
                return len(start)
        return None
