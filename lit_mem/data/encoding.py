"""Texts to token ids and labels, and examples to batches."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from lit_mem.data.cut_texts import CutTexts
from lit_mem.data.sources.table import shown
from lit_mem.errors import DataError
from lit_mem.files.untrusted import panics_raised
from lit_mem.types import IGNORED, Batch, Record, Span, Windows

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

Offsets = Sequence[tuple[int, int]]
"""Where each token stands in the text, in characters: start and end; equal for a token that is not of the text."""

_CONTRACT: Final = ("prompt", "completion", "group", "origin")


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
        windows: how it is read where it is longer than the model is given at once; None: it is read whole.
    """

    input_ids: Tensor
    labels: Tensor
    example_id: int
    member: bool
    appended: int = 0
    record: Record | None = None
    repetitions: int = 0
    windows: Windows | None = None

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

    def __call__(self, rows: Dataset, first_id: int, member: bool, name: str) -> list[Encoded]:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        The further columns go into each example's record: texts, numbers, true and false (as texts) and lists of
        texts become attributes, where a row has a value; the column of spans becomes its spans. A span with a token
        that is not scored is left out: one that was cut off, or the first token of all.

        Raises:
            DataError: a row leaves no token to train on, as its prompt fills `max_length`; or a span is malformed.
        """
        if not len(rows):
            return []
        prompts, completions, origins = (rows[column][:] for column in ("prompt", "completion", "origin"))
        texts = [p + c for p, c in zip(prompts, completions, strict=True)]
        # Together, then told apart by offsets: tokenizing the halves alone can give other tokens at the seam.
        with panics_raised("the tokenizer"):
            encoded = self.tokenizer(texts, return_offsets_mapping=True, return_attention_mask=False)
        attributes = attributes_of(rows, self.spans_column, name)
        has_spans = self.spans_column is not None and self.spans_column in rows.column_names
        marked = rows[self.spans_column][:] if has_spans else [None] * len(texts)
        examples, cut = [], CutTexts(self.max_length)
        for i, (ids, offsets, prompt, completion, marks) in enumerate(
            zip(encoded["input_ids"], encoded["offset_mapping"], prompts, completions, marked, strict=True)
        ):
            if self.bos is not None and ids[:2] == [self.bos, self.bos]:
                ids, offsets = ids[1:], offsets[1:]  # a text that spells the BOS token itself
            # In lists: a tensor for each intermediate result would take longer than the rest.
            labels = [token if end > len(prompt) else IGNORED for token, (_, end) in zip(ids, offsets, strict=True)]
            labels = [IGNORED, *labels[1:], *self.eos][: self.max_length]
            whole = [*ids, *self.eos]
            cut.add(len(whole))
            appended = len(self.eos) if len(whole) <= self.max_length else 0
            scored = [label != IGNORED for label in labels[: len(labels) - appended]] + [False] * appended
            if not any(scored):
                raise DataError(
                    f"{origins[i]}: no token to train on and score is left: prompt and completion are "
                    f"{len(ids)} tokens, data.max_length is {self.max_length}, and the first token is never scored"
                )
            # Not decoded from the ids: that need not give the text back.
            reached = max(end for _, end in offsets[: self.max_length]) - len(prompt)
            where = f"{origins[i]}: field {shown(self.spans_column or '')}"
            spans = [
                (kind, len(prompt) + start, len(prompt) + end)
                for kind, start, end in _marks(marks, len(completion), where)
            ]
            record = Record(
                text=completion if len(ids) <= self.max_length else completion[:reached],
                origin=origins[i],
                attributes=attributes[i],
                spans=_scored_spans(spans, texts[i], offsets, scored) if spans else (),
                prompt=prompt,
            )
            input_ids = torch.tensor(whole[: self.max_length])
            examples.append(Encoded(input_ids, torch.tensor(labels), first_id + i, member, appended, record))
        cut.warn(f"{name} texts")
        return examples


def attributes_of(rows: Dataset, spans_column: str | None, name: str) -> list[dict[str, Any]]:
    """For each row what its further columns say, by column; a column without a value is left out."""
    from datasets import ClassLabel, Json, LargeList, List, Value

    simple = (Value, ClassLabel, List, LargeList, Json)
    said: list[dict[str, Any]] = [{} for _ in range(len(rows))]
    for column, feature in rows.features.items():
        # Images and the like are not even opened.
        if column in _CONTRACT or column == spans_column or not isinstance(feature, simple):
            continue
        try:
            values = rows[column][:]
        except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond Python's
            log.warning("Column %s of the %s texts cannot be read; it is no attribute.", shown(column), name)
            continue
        for row, value in zip(said, values, strict=True):
            attribute = _attribute(value)
            if attribute is not None:
                row[column] = attribute
    return said


def _attribute(value: Any) -> str | float | tuple[str, ...] | None:
    """A value of a column as an attribute; None where it says nothing, or is of a kind that is not kept."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, list):
        parts = [part for part in value if part is not None and part != ""]
        return tuple(parts) if parts and all(isinstance(part, str) for part in parts) else None
    return value if isinstance(value, str) and value else None


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
    if any(e.windows is not None for e in examples):
        batch["windows"] = [e.windows for e in examples]
    return batch
