"""Sensitive spans in prompts and user turns: not trained on, but possibly known to the model."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor

from lit_mem.audit.known import Known
from lit_mem.audit.measures.spans import SpanExtraction
from lit_mem.audit.subject import Subject
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import IGNORED, Batch, Needs, TokenScores


class PromptSpanExtraction(SpanExtraction):
    """The rate at which marked spans of prompts are reproduced, given the true text before them.

    Like `SpanExtraction`, for text that is not trained on: prompts, and turns other than the assistant's. Spans that
    are trained on elsewhere (`data.chat.loss: all`, an earlier training) or repeated in answers show up here. It needs
    one more forward pass over the texts with such spans, up to the last of them; the base is scored once per run.

    Logged: `extraction/prompt_span_rate` (members' spans), `_heldout`, `_base` and `_base_heldout`, and the same for
    each kind of span. Column: `extraction/prompt_span_rate`. Nothing is logged if no such span is marked.

    Args:
        base: score the base model too.
    """

    metric: ClassVar[str] = "extraction/prompt_span_rate"
    written: ClassVar[str] = "prompt_spans_written"
    where: ClassVar[str] = " in text that is not trained on"
    none_found: ClassVar[str] = ""
    name_prefixes = ("extraction/prompt_span_rate_",)

    def __init__(self, base: bool = True) -> None:
        super().__init__(base)
        self.needs = Needs()
        self._subject: Subject | None = None
        self._of_base: dict[bytes, Tensor] = {}

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for other data and another base."""
        super().open(subject, known, fresh)
        self._of_base.clear()

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        super().begin(subject)
        self._subject = subject

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the spans of the batch, if it has any."""
        self._hidden.observe(batch)
        rows = [i for i, record in enumerate(batch.get("records", ())) if record.prompt_spans]
        if not rows:
            return
        assert self._subject is not None
        part = _of_spans(batch, rows)
        tuned = self._subject.prober(type(self).__name__).score(part)
        compares = self.base and not self._subject.lacks("reference_context")
        base = self._base_hits(part, tuned.hit.cpu()) if compares else None
        self._take(part, [record.prompt_spans for record in part["records"]], tuned, base)

    def _base_hits(self, part: Batch, tuned: Tensor) -> Tensor:
        """(B, T) bool, the base's greedy hits, scored at most once per batch."""
        assert self._subject is not None
        key = _digest(part)
        if key not in self._of_base:
            if self._subject.tuned_is_reference():
                self._of_base[key] = tuned
            else:
                with self._subject.reference_context() as model, self._subject.forward_context():
                    self._of_base[key] = TokenScorer(model)(part).hit.cpu()
        return self._of_base[key]


def _of_spans(batch: Batch, rows: list[int]) -> Batch:
    """These rows up to their last prompt span, with labels only on prompt spans."""
    records = [batch["records"][i] for i in rows]
    width = max(span.end for record in records for span in record.prompt_spans)
    ids = batch["input_ids"][rows][:, :width]
    labels = torch.full_like(ids, IGNORED)
    for row, record in enumerate(records):
        for span in record.prompt_spans:
            labels[row, span.start : span.end] = ids[row, span.start : span.end]
    part: dict[str, Any] = {
        "input_ids": ids,
        "labels": labels,
        "example_id": batch["example_id"][rows],
        "member": batch["member"][rows],
        "records": records,
    }
    if "windows" in batch:
        read = [batch["windows"][i] for i in rows]
        part["windows"] = [None if one is None or width <= one.tokens else one._replace(length=width) for one in read]
    if "at_once" in batch:
        part["at_once"] = batch["at_once"]
    return part  # type: ignore[return-value]


def _digest(part: Batch) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for name in ("example_id", "input_ids", "labels"):
        found.update(part[name].cpu().numpy().tobytes())
    return found.digest()
