"""Conversations as scored examples: which of their tokens are trained on, and which are scored."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

from lit_mem.data.attributes import attribute_columns, attributes_in
from lit_mem.data.chat.facts import ChatFacts
from lit_mem.data.chat.options import Chat
from lit_mem.data.chat.template import ChatTemplate, Rendered, TemplateError, Turn
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.examples import AT_ONCE, Examples
from lit_mem.data.progress import shown_progress
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.data.token_batches import Offsets
from lit_mem.errors import DataError
from lit_mem.files.untrusted import panics_raised
from lit_mem.types import IGNORED, Record

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_PROMPTS_CHECKED: Final = 100
"""Conversations of a set whose turns are rendered once more as prompts, which takes a while."""

Marks = list[bool]


class ConversationEncoder(Encoder):
    """Tokenizes conversations by a chat template.

    With `loss` "assistant" or "last" the tokens of the assistant's contents are trained on and scored, and the end of
    each such turn is trained on and not scored: a model that never learns it does not stop. A token that reaches over
    the start or the end of a content counts to it. Where the template marks the assistant's turns itself
    (`{% generation %}`), what it marks is trained on. With "all" every token but the first is trained on, and all but
    the ends of the assistant's turns are scored.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        max_length: longest example in tokens; what goes beyond is cut, and counted.
        spans_column: a column that is no attribute of the examples; None: there is none.
        chat: which turns carry the loss, and the template.

    Raises:
        DataError: the tokenizer has no offsets, or there is no template.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, spans_column: str | None = "spans", chat: Chat | None = None
    ) -> None:
        super().__init__(tokenizer, max_length, add_eos=False, spans_column=spans_column)
        self.chat = chat or Chat()
        self.template = ChatTemplate(tokenizer, self.chat.template_text())

    def __call__(self, rows: Dataset, first_id: int, member: bool, name: str) -> Examples:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        The text of an example's record is the assistant's contents as far as they are scored, joined by line ends; its
        prompt is what stands before the first one. What was cut and how much is trained on is logged.

        Raises:
            DataError: a message is not of the form; the template does not fit a conversation, or leaves out a turn in
                its own mask; or no token is left to score within `max_length`.
        """
        if not len(rows):
            return Examples()
        facts = ChatFacts(name, self.max_length)
        examples = Examples(self._made(rows, first_id, member, facts))
        facts.report()
        return examples

    def _made(self, rows: Dataset, first_id: int, member: bool, facts: ChatFacts) -> Iterator[Encoded]:
        kept = attribute_columns(rows.remove_columns([HELD, TOOLS]), self.spans_column, facts.name)
        needed = rows.select_columns([HELD, TOOLS, "origin", *kept])
        starts = list(range(0, len(rows), AT_ONCE))
        bar = f"Tokenizing {facts.name} conversations"
        for start, part in shown_progress(((n, needed[n : n + AT_ONCE]) for n in starts), AT_ONCE, len(rows), bar):
            known = attributes_in(part, kept)
            for example, attributes in zip(self._batch(part, first_id + start, member, facts), known, strict=True):
                if example.record is not None:
                    example.record.attributes.update(attributes)
                yield example

    def _batch(self, part: Mapping[str, Any], first_id: int, member: bool, facts: ChatFacts) -> list[Encoded]:
        turns = [json.loads(row) for row in part[HELD]]
        tools = [json.loads(row) if row else None for row in part[TOOLS]]
        rendered = [self.template.rendered(*row) for row in zip(turns, part["origin"], tools, strict=True)]
        with panics_raised("the tokenizer"):
            encoded = self.tokenizer(
                [one.text for one in rendered],
                add_special_tokens=False,  # the template writes them
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
        examples = []
        for i, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
            origin = part["origin"][i]
            own = self._template_mask(turns[i], tools[i], ids, origin) if self.template.marks_turns else None
            if facts.conversations < _PROMPTS_CHECKED:
                facts.prompts(self.template.agrees(rendered[i], turns[i], tools[i]))
            examples.append(self._example(rendered[i], ids, offsets, own, origin, first_id + i, member, facts))
        return examples

    def _template_mask(self, turns: list[dict[str, Any]], tools: Any, ids: list[int], origin: str) -> Marks:
        try:
            masked, own = self.template.mask(turns, tools)
        except TemplateError as error:
            raise DataError(f"{origin}: the chat template's mask of assistants cannot be had ({error})") from None
        if masked != ids:
            raise DataError(f"{origin}: the chat template gives other tokens with its mask of assistants than without")
        return own

    def _example(
        self,
        rendered: Rendered,
        ids: list[int],
        offsets: Offsets,
        own: Marks | None,
        origin: str,
        example_id: int,
        member: bool,
        facts: ChatFacts,
    ) -> Encoded:
        text, turns = rendered
        turns = turns[-1:] if self.chat.loss == "last" else turns
        contents = _within(offsets, [(turn.start, turn.end) for turn in turns])
        ends = _within(offsets, [(turn.end, turn.stop) for turn in turns])
        ends = [end and not inside for end, inside in zip(ends, contents, strict=True)]
        if own is not None:
            _check_mask(own, offsets, rendered.turns, origin)
        if self.chat.loss == "all":
            trained = [True] * len(ids)
            scored = [not end for end in ends]
        else:
            kept = own or [True] * len(ids)
            trained = [(inside or end) and k for inside, end, k in zip(contents, ends, kept, strict=True)]
            scored = contents
            if own is not None:
                trained = _of_turns(own, offsets, turns, rendered.turns)
        trained[:1] = [False]  # nothing precedes it
        limit = self.max_length
        scored = [s and t for s, t in zip(scored, trained, strict=True)][:limit]
        trained = trained[:limit]
        if not any(scored):
            first = contents.index(True) + 1 if any(contents) else "none"
            raise DataError(
                f"{origin}: no token to train on and score is left: the conversation is {len(ids)} tokens, the "
                f"assistant's first is {first}, data.max_length is {limit}, and the first token is never scored"
            )
        facts.add(len(ids), sum(trained), _n_cut(offsets, turns, limit), turns, own is None or _ends_in(own, ends))
        reached = max(end for _, end in offsets[:limit])
        shown = [(0, len(text))] if self.chat.loss == "all" else [(turn.start, turn.end) for turn in turns]
        record = Record(
            text="\n".join(text[start : min(end, reached)] for start, end in shown if start < reached),
            origin=origin,
            prompt=text[: shown[0][0]],
        )
        labels = [token if mine else IGNORED for token, mine in zip(ids, trained, strict=False)]
        unscored = tuple(i for i, (t, s) in enumerate(zip(trained, scored, strict=True)) if t and not s)
        return Encoded(
            torch.tensor(ids[:limit]), torch.tensor(labels), example_id, member, record=record, ends=unscored
        )


def _within(offsets: Offsets, spans: Sequence[tuple[int, int]]) -> Marks:
    """For each token whether it overlaps a span; spans are in order and apart."""
    return list(_overlaps(offsets, [(start, end) for start, end in spans if start < end]))


def _overlaps(offsets: Offsets, spans: Sequence[tuple[int, int]]) -> Iterator[bool]:
    current = 0
    for start, end in offsets:
        while current < len(spans) and spans[current][1] <= start:
            current += 1
        yield current < len(spans) and end > spans[current][0]


def _check_mask(own: Marks, offsets: Offsets, turns: Sequence[Turn], origin: str) -> None:
    """Raise where the template's own mask leaves out a turn, or a part of it.

    Raises:
        DataError: it does.
    """
    left_out = sum(
        any(inside and not mine for inside, mine in zip(_within(offsets, [(turn.start, turn.end)]), own, strict=True))
        for turn in turns
    )
    if left_out:
        raise DataError(
            f"{origin}: the chat template's own mask ({{% generation %}}) leaves out {left_out} of the {len(turns)} "
            "turns of the assistant, or parts of them, so that they would not be trained on; expected all of them in "
            "it, or a template without such blocks"
        )


def _of_turns(own: Marks, offsets: Offsets, turns: Sequence[Turn], every: Sequence[Turn]) -> Marks:
    """What the template marks, of these turns alone: from where the turn before them stops on."""
    if len(turns) == len(every):
        return list(own)
    before = max((turn.stop for turn in every if turn.stop <= turns[0].start), default=0)
    return [mine and start >= before for mine, (start, _) in zip(own, offsets, strict=True)]


def _n_cut(offsets: Offsets, turns: Sequence[Turn], limit: int) -> int:
    """How many turns have a token beyond the limit."""
    if len(offsets) <= limit:
        return 0
    first_lost = offsets[limit][0]
    return sum(turn.stop > first_lost for turn in turns)


def _ends_in(own: Marks, ends: Marks) -> bool:
    """Whether the template's mask holds the ends of turns."""
    return all(mine for mine, end in zip(own, ends, strict=True) if end)
