"""Encode texts as token ids and labels, and collate examples into batches."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lit_mem.data.attributes import attribute_columns, attributes_in
from lit_mem.data.cut_texts import CutTexts
from lit_mem.data.detectors import Detector
from lit_mem.data.examples import AT_ONCE, Examples
from lit_mem.data.marking import Marking
from lit_mem.data.placed_spans import Placed, placed
from lit_mem.data.progress import shown_progress, uncollected
from lit_mem.data.token_batches import TokenBatch, one_ahead
from lit_mem.errors import DataError
from lit_mem.types import IGNORED, Batch, Record, Windows

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """One encoded example.

    Attributes:
        input_ids: (T,) int64, without padding.
        labels: (T,) int64, `IGNORED` on the first token and on the prompt.
        example_id: unique over the sets that are compared.
        member: whether it is in the fine-tuning set.
        appended: number of tokens at the end that are not part of the text: trained on, not scored.
        record: what else is known about it.
        repetitions: for a canary scored as such: how often it is in the training set if inserted; else 0.
        ends: positions of other tokens that are trained on but not scored, such as ends of turns.
        windows: how it is split if it is too long for one forward pass; None: not split.
    """

    input_ids: Tensor
    labels: Tensor
    example_id: int
    member: bool
    appended: int = 0
    record: Record | None = None
    repetitions: int = 0
    ends: tuple[int, ...] = ()
    windows: Windows | None = None

    @property
    def scored(self) -> Tensor:
        """(T,) bool, the tokens that measures use."""
        scored = self.labels != IGNORED
        scored[0] = False
        scored[len(scored) - self.appended :] = False
        scored[list(self.ends)] = False
        return scored


class Encoder:
    """Tokenizes prompt and completion as one text, with labels on the completion only.

    Args:
        tokenizer: a Hugging Face tokenizer, which may or may not prepend a BOS token.
        max_length: maximum example length in tokens; longer ones are truncated and counted.
        add_eos: end each example with the tokenizer's end-of-text token, so that the model learns to stop.
        spans_column: the column of sensitive spans: a list of {type, start, end}, in characters of the completion, or
            another form of `lit_mem.data.span_forms`; a column `prompt_spans` next to it has those of the prompt. None:
            read no spans. Rows without such columns have no spans.
        deidentified: whether text between `[**` and `**]` is a span of type "deidentified".
        detector: detects further spans, or None.

    Raises:
        DataError: `add_eos` with a tokenizer without an end-of-text token, or a tokenizer without offsets.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        add_eos: bool,
        spans_column: str | None = "spans",
        deidentified: bool = False,
        detector: Detector | None = None,
    ) -> None:
        if add_eos and tokenizer.eos_token_id is None:
            raise DataError("data.add_eos is true, but the tokenizer has no end-of-text token; set it to false")
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("this tokenizer has no offsets; expected a fast tokenizer")
        # Texts longer than the context are truncated or split, and logged; transformers would warn of errors.
        getattr(tokenizer, "deprecation_warnings", {})["sequence-length-is-longer-than-the-specified-maximum"] = True
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.eos = [tokenizer.eos_token_id] if add_eos else []
        self.bos: int | None = tokenizer.bos_token_id
        self.marking = Marking(spans_column, deidentified, detector)

    def __call__(
        self, rows: Dataset, first_id: int, member: bool, name: str, looked_at: Container[int] | None = None
    ) -> Examples:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        Rows are processed in chunks, so memory holds the tokens of all rows but the Python objects of few. The
        tokenizer uses all cores. On a terminal a progress bar is shown.

        Other columns go into each example's record: strings, numbers, booleans (as strings) and lists of strings become
        attributes, if a row has a value. Marked and detected spans become its spans, those in unscored text its prompt
        spans. Spans that were truncated, are partly scored, or include the very first token are dropped. `looked_at`
        has the ids of the examples that the detector processes; None: all.

        Raises:
            DataError: a row leaves no token to train on, since its prompt fills `max_length`; or a span is malformed.
        """
        marks = self.marking.columns(rows.column_names)
        kept = attribute_columns(rows, marks, name)
        group = [name for name in ("group",) if name in rows.column_names]  # canaries have no group
        needed = rows.select_columns(["prompt", "completion", "origin", *group, *kept, *marks])
        parts = (needed[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
        first = iter(range(first_id, first_id + len(rows)))
        cut = CutTexts(self.max_length)

        def encoded() -> Iterator[Encoded]:
            both = one_ahead(parts, lambda part: TokenBatch(self.tokenizer, _whole_texts(part)))
            for part, tokens in shown_progress(both, AT_ONCE, len(rows), f"Tokenizing {name} texts"):
                yield from self._encoded(part, tokens, attributes_in(part, kept), first, member, cut, looked_at)

        with uncollected():
            examples = Examples(encoded())
        cut.warn(f"{name} texts")
        return examples

    def _encoded(
        self,
        part: Mapping[str, list[Any]],
        tokens: TokenBatch,
        attributes: list[dict[str, Any]],
        ids: Iterator[int],
        member: bool,
        cut: CutTexts,
        looked_at: Container[int] | None,
    ) -> Iterator[Encoded]:
        """The examples of some rows, given by column; counts truncated ones in `cut`."""
        texts, prompts, completions, origins = _whole_texts(part), part["prompt"], part["completion"], part["origin"]
        end = np.array(self.eos, np.int64)
        # Use arrays: lists or tensors for each intermediate result take longer than everything else.
        for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            own, trained = tokens.ids(i), tokens.after(i, len(prompt))
            # A text that contains the BOS token itself has it twice.
            twice = int(self.bos is not None and len(own) > 1 and own[0] == self.bos == own[1])
            own, trained = own[twice:], trained[twice:]
            trained[:1] = False
            whole = np.concatenate([own, end])[: self.max_length]
            labels = whole.copy()
            labels[: len(own)][~trained[: self.max_length]] = IGNORED
            is_cut = len(own) + len(end) > self.max_length
            cut.add(len(own) + len(end))
            appended = 0 if is_cut else len(end)
            scored = labels[: len(labels) - appended] != IGNORED
            if not scored.any():
                raise DataError(
                    f"{origins[i]}: no token left to train on and score: prompt and completion have "
                    f"{len(own)} tokens, data.max_length is {self.max_length}, and the first token is never scored"
                )
            text = completion
            if len(own) > self.max_length:
                # Not decoded from the ids, which may not restore the text.
                text = completion[: int(tokens.ends(i)[twice:][: self.max_length].max()) - len(prompt)]
            example_id = next(ids)
            pieces = self.marking.pieces(part, i, looked_at is None or example_id in looked_at)
            spans = Placed([], [])
            if pieces:
                every = [*scored.tolist(), *[False] * appended]
                spans = placed(pieces, texts[i], tokens.offsets(i)[twice:], every)
            group = part["group"][i] if "group" in part else ""
            unscored = {"prompt": prompt, "prompt_spans": spans.unscored}
            record = Record(text, origins[i], attributes[i], spans.scored, group=group, **unscored)
            input_ids, labels_ = torch.from_numpy(whole), torch.from_numpy(labels)
            yield Encoded(input_ids, labels_, example_id, member, appended, record)


def _whole_texts(part: Mapping[str, list[Any]]) -> list[str]:
    """Prompt and completion of some rows together: tokenizing them separately can give other tokens at the boundary."""
    return [p + c for p, c in zip(part["prompt"], part["completion"], strict=True)]


def collate(examples: Sequence[Encoded], width: int | None = None) -> Batch:
    """Collate examples into one batch, padded on the right to the longest, or to `width` tokens.

    The padding token does not matter: causal attention keeps real tokens from attending to it, and it has no label.
    Records are passed on without copying; the batch has none unless every example has one.
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
