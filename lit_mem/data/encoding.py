"""Texts to token ids and labels, and examples to batches."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lit_mem.data.attributes import attribute_columns, attributes_in
from lit_mem.data.examples import AT_ONCE, Examples
from lit_mem.data.progress import shown_progress, uncollected
from lit_mem.data.sources.table import shown
from lit_mem.data.token_batches import Offsets, TokenBatch, one_ahead
from lit_mem.errors import DataError
from lit_mem.types import IGNORED, Batch, Record, Span

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it.

    Attributes:
        input_ids: (T,) int64, without padding.
        labels: (T,) int64, `IGNORED` on the first token and on the prompt.
        example_id: unique over the sets that are compared.
        member: whether it is in the fine-tuning set.
        appended: number of tokens at the end that are not of the text: trained on, not scored.
        record: what else is known of it.
        repetitions: of a canary that is to be scored as such: how often it is in the training set if it is in; else 0.
    """

    input_ids: Tensor
    labels: Tensor
    example_id: int
    member: bool
    appended: int = 0
    record: Record | None = None
    repetitions: int = 0

    @property
    def scored(self) -> Tensor:
        """(T,) bool, which tokens measures read."""
        scored = self.labels != IGNORED
        scored[0] = False
        scored[len(scored) - self.appended :] = False
        return scored


class Encoder:
    """Tokenizes prompt and completion as one text, with labels on the completion only.

    Args:
        tokenizer: a Hugging Face tokenizer; whether a BOS token stands in front is its own habit.
        max_length: longest example in tokens; what goes beyond is cut, and counted.
        add_eos: end each example with the tokenizer's end-of-text token, so that the model learns to stop.
        spans_column: the column of telling pieces: a list of {type, start, end}, in characters of the completion;
            None: there is none. Rows without such a column have no telling pieces.

    Raises:
        DataError: `add_eos` with a tokenizer that has no such token, or a tokenizer without offsets.
    """

    def __init__(self, tokenizer: Any, max_length: int, add_eos: bool, spans_column: str | None = "spans") -> None:
        if add_eos and tokenizer.eos_token_id is None:
            raise DataError("data.add_eos is true, but the tokenizer has no end-of-text token; set it to false")
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("this tokenizer does not tell where its tokens stand in the text; a fast one is needed")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.eos = [tokenizer.eos_token_id] if add_eos else []
        self.bos: int | None = tokenizer.bos_token_id
        self.spans_column = spans_column

    def __call__(self, rows: Dataset, first_id: int, member: bool, name: str) -> Examples:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        Some rows at a time, so that memory holds the tokens of all rows but the Python objects of few. The tokenizer
        uses all cores. On a terminal a bar shows how far it is.

        The further columns go into each example's record: texts, numbers, true and false (as texts) and lists of
        texts become attributes, where a row has a value; the column of spans becomes its spans. A span with a token
        that is not scored is left out: one that was cut off, or the first token of all.

        Raises:
            DataError: a row leaves no token to train on, as its prompt fills `max_length`; or a span is malformed.
        """
        kept = attribute_columns(rows, self.spans_column, name)
        has_spans = self.spans_column is not None and self.spans_column in rows.column_names
        further = [*kept, *([self.spans_column] if has_spans else [])]
        needed = rows.select_columns(["prompt", "completion", "origin", *further])
        parts = (needed[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
        first = iter(range(first_id, first_id + len(rows)))
        cut = Counter[bool]()

        def encoded() -> Iterator[Encoded]:
            both = one_ahead(parts, lambda part: TokenBatch(self.tokenizer, _whole_texts(part)))
            for part, tokens in shown_progress(both, AT_ONCE, len(rows), f"Tokenizing {name} texts"):
                yield from self._encoded(part, tokens, attributes_in(part, kept), first, member, cut)

        with uncollected():
            examples = Examples(encoded())
        if cut[True]:
            log.warning(
                "%d of %d %s texts were cut to data.max_length=%d tokens.", cut[True], len(rows), name, self.max_length
            )
        return examples

    def _encoded(
        self,
        part: Mapping[str, list[Any]],
        tokens: TokenBatch,
        attributes: list[dict[str, Any]],
        ids: Iterator[int],
        member: bool,
        cut: Counter[bool],
    ) -> Iterator[Encoded]:
        """The examples of some rows, by column; counts in `cut` how many are."""
        texts, prompts, completions, origins = _whole_texts(part), part["prompt"], part["completion"], part["origin"]
        end = np.array(self.eos, np.int64)
        marked = part.get(self.spans_column or "", [None] * len(texts))
        # In arrays: lists or tensors for each intermediate result of a text take longer than the rest.
        for i, (prompt, completion, marks) in enumerate(zip(prompts, completions, marked, strict=True)):
            own, trained = tokens.ids(i), tokens.after(i, len(prompt))
            # A text that spells the BOS token itself has it twice.
            twice = int(self.bos is not None and len(own) > 1 and own[0] == self.bos == own[1])
            own, trained = own[twice:], trained[twice:]
            trained[:1] = False
            whole = np.concatenate([own, end])[: self.max_length]
            labels = whole.copy()
            labels[: len(own)][~trained[: self.max_length]] = IGNORED
            is_cut = len(own) + len(end) > self.max_length
            cut[is_cut] += 1
            appended = 0 if is_cut else len(end)
            scored = labels[: len(labels) - appended] != IGNORED
            if not scored.any():
                raise DataError(
                    f"{origins[i]}: no token to train on and score is left: prompt and completion are "
                    f"{len(own)} tokens, data.max_length is {self.max_length}, and the first token is never scored"
                )
            text = completion
            if len(own) > self.max_length:
                # Not decoded from the ids: that need not give the text back.
                text = completion[: int(tokens.ends(i)[twice:][: self.max_length].max()) - len(prompt)]
            spans: list[Span] = []
            if marks is not None:
                where = f"{origins[i]}: field {shown(self.spans_column or '')}"
                found = [(k, len(prompt) + a, len(prompt) + b) for k, a, b in _marks(marks, len(completion), where)]
                if found:
                    every = [*scored.tolist(), *[False] * appended]
                    spans = _scored_spans(found, texts[i], tokens.offsets(i)[twice:], every)
            record = Record(text, origins[i], attributes[i], spans, prompt=prompt)
            input_ids, labels_ = torch.from_numpy(whole), torch.from_numpy(labels)
            yield Encoded(input_ids, labels_, next(ids), member, appended, record)


def _whole_texts(part: Mapping[str, list[Any]]) -> list[str]:
    """Prompt and completion of some rows together: tokenizing the halves alone can give other tokens at the seam."""
    return [p + c for p, c in zip(part["prompt"], part["completion"], strict=True)]


def _marks(value: Any, length: int, where: str) -> Iterator[tuple[str, int, int]]:
    """Type, start and end of each span of a row, in characters of its completion, which has `length` of them.

    Raises:
        DataError: the value is not a list of {type, start, end}; the message starts with `where`, and quotes no text.
    """
    if isinstance(value, str):  # as a csv file has it, and a column whose rows are not all of one form
        try:
            value = json.loads(value.strip() or "null")
        except (ValueError, RecursionError):
            pass
    if value is None:
        return
    form = "a list of {type, start, end} (data.spans_column: null leaves the column unread)"
    if not isinstance(value, list):
        raise DataError(f"{where}: found {_kind(value)}, expected {form}")
    for number, mark in enumerate(value, start=1):
        at = f"{where}, span {number}"
        if not isinstance(mark, dict):
            raise DataError(f"{at}: found {_kind(mark)}, expected {form}")
        kind = mark.get("type")
        if not isinstance(kind, str) or not kind.strip():
            found = "an empty text" if isinstance(kind, str) else _kind(kind)
            raise DataError(f"{at}: found {found} as its type, expected a text that is not empty")
        start, end = (_whole(mark.get(bound), at, bound) for bound in ("start", "end"))
        if not 0 <= start < end <= length:
            raise DataError(
                f"{at}: found start {start} and end {end}, expected 0 <= start < end <= {length}, "
                "the characters of the completion"
            )
        yield kind, start, end


def _whole(value: Any, where: str, bound: str) -> int:
    """A whole number; a float too, for a column with one broken row may hold all its numbers as floats."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    found = str(value) if isinstance(value, float) else _kind(value)
    raise DataError(f"{where}: found {found} as its {bound}, expected a whole number")


def _kind(value: Any) -> str:
    """What a value is, for a message that must not show it."""
    return {"NoneType": "nothing", "str": "a text", "dict": "an object"}.get(type(value).__name__, type(value).__name__)


def _scored_spans(
    spans: Sequence[tuple[str, int, int]], text: str, offsets: Offsets, scored: Sequence[bool]
) -> list[Span]:
    """Spans in characters of the text to spans in tokens, but for those with a token that is not scored.

    The tokens of a span are those that overlap it in a character that is no space, and all between these.
    """
    found = []
    for kind, start, end in spans:
        tokens = [
            token
            for token, (a, b) in enumerate(offsets)
            if a < end and b > start and text[max(a, start) : min(b, end)].strip()
        ]
        if tokens and tokens[-1] < len(scored) and all(scored[tokens[0] : tokens[-1] + 1]):
            found.append(Span(kind, tokens[0], tokens[-1] + 1))
    return found


def collate(examples: Sequence[Encoded], width: int | None = None) -> Batch:
    """Examples to one batch, padded on the right to the longest, or to `width` tokens.

    The padding token does not matter: causal attention keeps real tokens from seeing it, and no label is on it.
    Records are handed on as they are, not copied; there are none in the batch unless every example has one.
    """
    width = width or max(len(e.input_ids) for e in examples)
    input_ids = torch.zeros((len(examples), width), dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    scored = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.input_ids)] = example.input_ids
        labels[row, : len(example.labels)] = example.labels
        scored[row, : len(example.labels)] = example.scored
    batch = Batch(
        input_ids=input_ids,
        labels=labels,
        scored=scored,
        example_id=torch.tensor([e.example_id for e in examples]),
        member=torch.tensor([e.member for e in examples]),
    )
    records = [e.record for e in examples if e.record is not None]
    if len(records) == len(examples):
        batch["records"] = records
    if all(e.repetitions for e in examples):
        batch["canary"] = torch.tensor([e.repetitions for e in examples])
    return batch
