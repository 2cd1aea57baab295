"""Where the assistant speaks in the text that a chat template makes of a conversation."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from lit_mem.data.chat.messages import speaks
from lit_mem.data.chat.template import ChatTemplate, TemplateError
from lit_mem.errors import DataError


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
        contents: of each message where its content starts and ends in the text, None where that is not known.
    """

    text: str
    turns: list[Turn]
    contents: list[tuple[int, int] | None]


class TurnFinder:
    """Applies a template to the whole conversation, never to one turn, and finds the turns in what it makes of it.

    For a template may add a system prompt, trim contents or treat the last turn in its own way. It is applied again
    with a mark in place of each content: what stands in the text where the marks stand are the contents, as far as the
    template shows them.

    Args:
        template: of the conversations.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template

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
            text = self.template.text(turns, tools=tools)
        except TemplateError as error:
            raise DataError(f"{where}: the chat template rejects it: {error}") from None
        contents: list[tuple[int, int] | None] = [None] * len(turns)
        said = [i for i, turn in enumerate(turns) if turn["content"].strip()]
        # A template may leave out a system's message, or read into what others than the assistant say.
        ways = [said, [i for i in said if turns[i]["role"] != "system"], [i for i in said if i in speaking]]
        for some in ways:
            if (found := self._at_marks(text, turns, some, tools)) is not None:
                for i, span in zip(some, found, strict=True):
                    contents[i] = span
                break
        known = all(contents[i] is not None and not turns[i].get("tool_calls") for i in speaking)
        spans = [contents[i] for i in speaking] if known else None
        spans = self._between_prefixes(text, turns, speaking, tools, where) if spans is None else spans
        return Rendered(text, [Turn(*span, self._stop(text, span[1])) for span in spans if span is not None], contents)

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

    def _stop(self, text: str, end: int) -> int:
        """After the end of a turn whose content ends there."""
        wanted = self.template.end.strip()
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
            marked = self.template.text(
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
    ) -> list[tuple[int, int] | None]:
        """The contents by the text of the messages before a turn and up to it, for templates that read into contents.

        A turn with tool calls is all that the template writes of it.

        Raises:
            DataError: a content does not stand there whole and once.
        """
        spans: list[tuple[int, int] | None] = []
        for i in speaking:
            content = turns[i]["content"].strip()
            before = self._prefix(text, [(turns[:i], True), (turns[:i], False)], tools)
            upto = self._prefix(text, [(turns[: i + 1], False)], tools)
            if turns[i].get("tool_calls"):
                spans.append(self._calls(text, before, upto, f"{where}: message {i + 1}"))
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

    def _calls(self, text: str, before: int | None, upto: int | None, where: str) -> tuple[int, int]:
        """All that stands between two places, but for the end of the turn; up to that end where one is not known.

        Raises:
            DataError: nothing stands there.
        """
        end = self.template.end.strip()
        if before is not None and upto is None and end and (at := text.find(end, before)) >= 0:
            upto = at
        whole = "" if before is None or upto is None else text[before:upto].rstrip().removesuffix(end).rstrip()
        if before is None or not whole.strip():
            raise DataError(f"{where}: the chat template does not show its tool calls; expected one that does")
        return before, before + len(whole)

    def _prefix(self, text: str, ways: list[tuple[list[dict[str, Any]], bool]], tools: Any) -> int | None:
        """How long the text of the first messages is that is a prefix of the whole; None where there is no such."""
        for turns, ask in ways:
            try:
                start = self.template.text(turns, ask, tools) if turns else ""
            except TemplateError:
                continue
            if text.startswith(start):
                return len(start)
        return None
