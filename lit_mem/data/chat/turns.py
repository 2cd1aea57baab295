"""Locate assistant turns in the text that a chat template renders."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from lit_mem.data.chat.messages import speaks
from lit_mem.data.chat.template import ChatTemplate, TemplateError
from lit_mem.errors import DataError


class Turn(NamedTuple):
    """Position of an assistant message in the text of a conversation, in characters.

    Attributes:
        start: start of its content.
        end: end of its content.
        stop: end of the template's end-of-turn text; equals `end` if there is none.
    """

    start: int
    end: int
    stop: int


class Rendered(NamedTuple):
    """A conversation as rendered by the template.

    Attributes:
        text: includes a BOS token if the template adds one.
        turns: non-empty assistant turns, in order.
        contents: start and end of each message's content in the text, or None if unknown.
    """

    text: str
    turns: list[Turn]
    contents: list[tuple[int, int] | None]


class TurnFinder:
    """Applies a template to the whole conversation, never to single turns, and locates the turns in the result.

    A template may add a system prompt, trim contents or treat the last turn differently. It is applied a second time
    with a marker in place of each content: the text at the markers' positions is the content, as far as the template
    shows it.

    Args:
        template: the template of the conversations.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self.template = template

    def rendered(self, turns: list[dict[str, Any]], where: str, tools: Any = None) -> Rendered:
        """Render a conversation, and locate its assistant turns.

        Args:
            turns: as returned by `messages.checked`.
            where: name of the conversation, for messages.
            tools: functions that it may call.

        Raises:
            DataError: there is no assistant turn, the template rejects the conversation, or does not render an
                assistant turn unaltered and once. The message contains no text of the conversation.
        """
        speaking = [i for i, turn in enumerate(turns) if speaks(turn)]
        if not speaking:
            raise DataError(f"{where}: no assistant message has text; expected at least one to score")
        try:
            text = self.template.text(turns, tools=tools)
        except TemplateError as error:
            raise DataError(f"{where}: the chat template rejects it: {error}") from None
        contents: list[tuple[int, int] | None] = [None] * len(turns)
        said = [i for i, turn in enumerate(turns) if turn["content"].strip()]
        # A template may drop a system message, or alter the contents of other roles.
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
        """Whether the generation prompt of each assistant turn equals the text before it.

        A template may render a generation prompt differently from the same turn in training.
        """
        speaking = [i for i, turn in enumerate(turns) if speaks(turn)]
        for i, turn in zip(speaking, rendered.turns, strict=True):
            if i == 0:
                continue  # there is no prompt
            before = self._prefix(rendered.text, [(turns[:i], True)], tools)
            if before is None or rendered.text[before : turn.start].strip():
                return False
        return True

    def _stop(self, text: str, end: int) -> int:
        """The position after the end-of-turn text of a turn whose content ends at `end`."""
        wanted = self.template.end.strip()
        if not wanted:
            return end
        rest = text[end:]
        at = len(rest) - len(rest.lstrip())
        return end + at + len(wanted) if rest.startswith(wanted, at) else end

    def _at_marks(
        self, text: str, turns: list[dict[str, Any]], speaking: list[int], tools: Any
    ) -> list[tuple[int, int]] | None:
        """The content positions, or None if the text is not the marked one with contents in place of the markers."""
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
        """Content positions from the rendered prefixes before and up to a turn, for templates that alter contents.

        A turn with tool calls spans everything that the template renders for it.

        Raises:
            DataError: a content is not rendered unaltered and once.
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
                    f"{where}: message {i + 1}: the chat template does not render the assistant's content unaltered "
                    "and "
                    "once; expected a template that does not change contents, or contents in the form that it "
                    "produces"
                )
            spans.append((start, start + len(content)))
        return spans

    def _calls(self, text: str, before: int | None, upto: int | None, where: str) -> tuple[int, int]:
        """The text between two positions, without the end of the turn; up to that end if one is unknown.

        Raises:
            DataError: the text is empty.
        """
        end = self.template.end.strip()
        if before is not None and upto is None and end and (at := text.find(end, before)) >= 0:
            upto = at
        whole = "" if before is None or upto is None else text[before:upto].rstrip().removesuffix(end).rstrip()
        if before is None or not whole.strip():
            raise DataError(f"{where}: the chat template does not render its tool calls; expected one that does")
        return before, before + len(whole)

    def _prefix(self, text: str, ways: list[tuple[list[dict[str, Any]], bool]], tools: Any) -> int | None:
        """Length of the rendered first messages if they are a prefix of the whole text; None otherwise."""
        for turns, generate in ways:
            try:
                start = self.template.text(turns, generate, tools) if turns else ""
            except TemplateError:
                continue
            if text.startswith(start):
                return len(start)
        return None
