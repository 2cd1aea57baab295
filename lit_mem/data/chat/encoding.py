"""Encode conversations as examples: which tokens are trained on, and which are scored."""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch

from lit_mem.data.attributes import attribute_columns, attributes_in
from lit_mem.data.chat.facts import ChatFacts
from lit_mem.data.chat.messages import marked_pieces
from lit_mem.data.chat.options import Chat
from lit_mem.data.chat.template import ChatTemplate, TemplateError
from lit_mem.data.chat.turns import Rendered, Turn, TurnFinder
from lit_mem.data.detectors import Detector
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.examples import AT_ONCE, Examples
from lit_mem.data.placed_spans import placed
from lit_mem.data.progress import shown_progress, uncollected
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.data.token_batches import Offsets
from lit_mem.errors import DataError
from lit_mem.files.untrusted import panics_raised
from lit_mem.types import IGNORED, Record

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_PROMPTS_CHECKED: Final = 100
"""Number of conversations per set whose turns are also rendered as prompts, which is slow."""

Marks = np.ndarray[Any, np.dtype[np.bool_]]
"""(T,) bool, one mark per token."""
Places = np.ndarray[Any, np.dtype[np.int64]]
"""(T, 2) start and end of each token in the text, in characters."""


class ConversationEncoder(Encoder):
    """Tokenizes conversations with a chat template.

    With `loss` "assistant" or "last" the tokens of the assistant's contents are trained on and scored, and the end of
    each such turn is trained on but not scored: a model that never learns it does not stop. A token that overlaps the
    start or the end of a content counts as content. If the template marks the assistant's turns itself
    (`{% generation %}`), what it marks is trained on. With "all" every token except the first is trained on, and the
    end of the last assistant turn is not scored.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        max_length: longest example in tokens; longer ones are truncated, and counted.
        spans_column: a column that is not an attribute of the examples, or None.
        chat: which turns carry the loss, and the template.

    Raises:
        DataError: the tokenizer has no offsets, or there is no template.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        spans_column: str | None = "spans",
        deidentified: bool = False,
        detector: Detector | None = None,
        chat: Chat | None = None,
    ) -> None:
        super().__init__(tokenizer, max_length, False, spans_column, deidentified, detector)
        self.chat = chat or Chat()
        self.template = ChatTemplate(tokenizer, self.chat.template_text())
        self.finder = TurnFinder(self.template)

    def __call__(
        self, rows: Dataset, first_id: int, member: bool, name: str, looked_at: Container[int] | None = None
    ) -> Examples:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        The text of an example's record is the scored part of the assistant's contents, joined by newlines; its prompt
        is the text before the first one. Spans that messages mark (a key `spans`, in characters of the content) or that
        are detected become spans of the record, those outside the scored text its prompt spans. Truncation and the
        share of trained tokens are logged.

        Raises:
            DataError: the template does not support a conversation, or its own mask misses a turn; or no token is left
                to score within `max_length`.
        """
        if not len(rows):
            return Examples()
        facts = ChatFacts(name, self.max_length)
        with uncollected():
            examples = Examples(self._made(rows, first_id, member, facts, looked_at))
        facts.report()
        return examples

    def _made(
        self, rows: Dataset, first_id: int, member: bool, facts: ChatFacts, looked_at: Container[int] | None
    ) -> Iterator[Encoded]:
        kept = attribute_columns(rows, [HELD, TOOLS, *self.marking.columns(rows.column_names)], facts.name)
        needed = rows.select_columns([HELD, TOOLS, "origin", "group", *kept])
        ids = iter(range(first_id, first_id + len(rows)))
        parts = (needed[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
        for part in shown_progress(parts, AT_ONCE, len(rows), f"Tokenizing {facts.name} conversations"):
            known = attributes_in(part, kept)
            for row, attributes in zip(self._tokenized(part), known, strict=True):
                example_id = next(ids)
                yield self._example(row, attributes, example_id, member, facts, looked_at)

    def _tokenized(self, part: Mapping[str, Any]) -> Iterator[_Row]:
        turns = [json.loads(row) for row in part[HELD]]
        tools = [json.loads(row) if row else None for row in part[TOOLS]]
        rendered = [self.finder.rendered(*row) for row in zip(turns, part["origin"], tools, strict=True)]
        with panics_raised("the tokenizer"):
            encoded = self.tokenizer(
                [one.text for one in rendered],
                add_special_tokens=False,  # the template adds them
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
        tokens = encoded["input_ids"], encoded["offset_mapping"]
        places = (np.array(offsets, np.int64).reshape(-1, 2) for offsets in encoded["offset_mapping"])
        for row in zip(turns, tools, rendered, *tokens, places, part["origin"], part["group"], strict=True):
            yield _Row(*row)

    def _example(
        self,
        row: _Row,
        attributes: Mapping[str, Any],
        example_id: int,
        member: bool,
        facts: ChatFacts,
        looked_at: Container[int] | None,
    ) -> Encoded:
        own = self._template_mask(row) if self.template.marks_turns else None
        if facts.conversations < _PROMPTS_CHECKED:
            facts.prompts(self.finder.agrees(row.rendered, row.messages, row.tools))
        text, turns = row.rendered.text, row.rendered.turns
        turns = turns[-1:] if self.chat.loss == "last" else turns
        contents = _within(row.places, [(turn.start, turn.end) for turn in turns])
        ends = _within(row.places, [(turn.end, turn.stop) for turn in turns]) & ~contents
        if self.chat.loss == "all":
            # Like an appended end-of-text token, the end of the whole text is trained on but not scored.
            closes = not text[turns[-1].stop :].strip()
            trained, scored = np.ones_like(ends), (not closes) | (row.places[:, 0] < turns[-1].end)
        elif own is not None:
            trained, scored = _of_turns(own, row.places, turns, row.rendered.turns), contents
        else:
            trained, scored = contents | ends, contents
        trained[:1] = False  # nothing precedes it
        limit = self.max_length
        scored, trained = (scored & trained)[:limit], trained[:limit]
        if not scored.any():
            first = int(contents.argmax()) + 1 if contents.any() else "none"
            raise DataError(
                f"{row.origin}: no token left to train on and score: the conversation has {len(row.ids)} tokens, the "
                f"assistant's first is {first}, data.max_length is {limit}, and the first token is never scored"
            )
        ends_trained = own is None or bool(own[ends].all())
        facts.add(len(row.ids), int(trained.sum()), _n_cut(row.places, turns, limit), turns, ends_trained)
        reached = int(row.places[:limit, 1].max())
        shown = [(0, len(text))] if self.chat.loss == "all" else [(turn.start, turn.end) for turn in turns]
        looks = looked_at is None or example_id in looked_at
        pieces = marked_pieces(row.messages, row.rendered.contents, lambda said: self.marking.found_in(said, looks))
        spans = placed(pieces, text, row.offsets, scored.tolist())
        record = Record(
            text="\n".join(text[start : min(end, reached)] for start, end in shown if start < reached),
            origin=row.origin,
            attributes=attributes,
            spans=spans.scored,
            prompt=text[: shown[0][0]],
            prompt_spans=spans.unscored,
            group=row.group,
        )
        ids = np.array(row.ids[:limit], np.int64)
        labels = torch.from_numpy(np.where(trained, ids, IGNORED))
        unscored = tuple(np.flatnonzero(trained & ~scored).tolist())
        return Encoded(torch.from_numpy(ids), labels, example_id, member, record=record, ends=unscored)

    def _template_mask(self, row: _Row) -> Marks:
        """(T,) the tokens that the template itself marks as the assistant's."""
        try:
            masked, own = self.template.mask(row.messages, row.tools)
        except TemplateError as error:
            raise DataError(f"{row.origin}: the chat template's assistant mask failed ({error})") from None
        if masked != row.ids:
            raise DataError(
                f"{row.origin}: the chat template gives other tokens with its assistant mask than without it"
            )
        marks = np.array(own, bool)
        _check_mask(marks, row.places, row.rendered.turns, row.origin)
        return marks


class _Row(NamedTuple):
    """One conversation, tokenized; `ids`, `offsets` and, as an array, `places` of all T tokens, untruncated."""

    messages: list[dict[str, Any]]
    tools: Any
    rendered: Rendered
    ids: list[int]
    offsets: Offsets
    places: Places
    origin: str
    group: str


def _within(places: Places, spans: Sequence[tuple[int, int]]) -> Marks:
    """For each token whether it overlaps a span."""
    found = np.zeros(len(places), bool)
    for start, end in spans:
        if start < end:
            found |= (places[:, 0] < end) & (places[:, 1] > start)
    return found


def _check_mask(own: Marks, places: Places, turns: Sequence[Turn], origin: str) -> None:
    """Raise if the template's own mask misses a turn, or a part of it.

    Raises:
        DataError: a turn is missing from the mask.
    """
    left_out = sum(bool((_within(places, [(turn.start, turn.end)]) & ~own).any()) for turn in turns)
    if left_out:
        raise DataError(
            f"{origin}: the chat template's own mask ({{% generation %}}) misses {left_out} of the {len(turns)} "
            "assistant "
            "turns, or parts of them, so they would not be trained on; expected a mask that covers all of them, or a "
            "template without such blocks"
        )


def _of_turns(own: Marks, places: Places, turns: Sequence[Turn], every: Sequence[Turn]) -> Marks:
    """The template's marks, restricted to these turns: each from the end of the previous turn."""
    if len(turns) == len(every):
        return own.copy()
    before = max((turn.stop for turn in every if turn.stop <= turns[0].start), default=0)
    return own & (places[:, 0] >= before)


def _n_cut(places: Places, turns: Sequence[Turn], limit: int) -> int:
    """Number of turns with a token beyond the limit."""
    if len(places) <= limit:
        return 0
    return sum(turn.stop > places[limit, 0] for turn in turns)
