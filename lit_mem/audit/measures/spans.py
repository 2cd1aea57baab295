"""Sensitive spans: names, dates and record numbers that the model reproduces given the text before them."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mem.audit.gather import Gathered
from lit_mem.audit.hidden_values import HiddenValues
from lit_mem.audit.known import Known
from lit_mem.audit.measure import NO_BASE, Measure, Pass, Result, with_ends
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.files.once import Once
from lit_mem.functional.ends import ends_in
from lit_mem.functional.groups import safe_names
from lit_mem.functional.interval import Interval
from lit_mem.functional.plain_text import printable
from lit_mem.functional.rate import ratio_interval
from lit_mem.functional.shown_values import shown_as
from lit_mem.types import Batch, Needs, Span, TokenScores

log = logging.getLogger(__name__)


_OTHERS: Final = re.compile(r"(^|_)(heldout|base|low|high)$")
_KINDS_LOGGED: Final = 20
_FEWEST: Final = 2  # a kind found in a single example is likely part of its text


class _SpanResult(NamedTuple):
    """Result of one span; `written_base` is None if not known."""

    kind: str
    member: bool
    written: bool
    written_base: bool | None


class SpanExtraction(Measure):
    """The rate at which marked spans are reproduced, given the true text before them.

    A span counts if greedy decoding from the text before it reproduces it token for token. The scoring pass shows this
    without generation: all its tokens are the greedy choices. A span is truncated at an end token.

    Logged: `extraction/span_rate` (members' spans), `extraction/span_rate_heldout`, the base model's `_base` and
    `_base_heldout`, and the same for each kind of span, as in `extraction/span_rate_name_heldout`; each with its 95 %
    interval `_low` and `_high`, clustered by text (`functional.rate.ratio_interval`). Columns: `extraction/span_rate`,
    the share of an example's spans, and `spans_written`, their number. Nothing is logged if no spans are marked in the
    data.

    Args:
        base: measure the base model too.
    """

    metric: ClassVar[str] = "extraction/span_rate"
    written: ClassVar[str] = "spans_written"
    where: ClassVar[str] = ""
    none_found: ClassVar[str] = "No sensitive spans: none are marked in the data (column `spans`)."
    name_prefixes = ("extraction/span_rate_",)

    def __init__(self, base: bool = True) -> None:
        self.base = base
        self.needs = Needs(reference=base)
        self._spans: Gathered[tuple[int, int, int, str], _SpanResult] = Gathered()
        self._hidden = HiddenValues()
        self._once = Once()

    def names(self) -> list[str]:
        """Metrics over spans of all kinds."""
        parts = ("", "_heldout", "_base", "_base_heldout") if self.base else ("", "_heldout")
        return with_ends(self.metric + part for part in parts)

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for other data."""
        self._hidden.reset()

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._spans.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Check the spans of the batch."""
        if self.base and scores.reference_hit is None and not self.absent:  # on every rank, whatever its texts
            self.leave_out([name for name in self.names() if "_base" in name], NO_BASE)
        self._hidden.observe(batch)
        if any(record.spans for record in batch.get("records", ())):
            base = scores.reference_hit.cpu() if self.base and scores.reference_hit is not None else None
            self._take(batch, [record.spans for record in batch["records"]], scores, base)

    def _take(self, batch: Batch, spans: Sequence[Sequence[Span]], scores: TokenScores, base: Tensor | None) -> None:
        """Check whether every token of each span is a (B, T) greedy hit of the model, and of the base."""
        hit = scores.hit.cpu().numpy()  # reading a few numbers at a time is faster in numpy
        found = ends_in(batch, self.ends)
        ends = np.zeros_like(hit) if found is None else found.cpu().numpy()
        base_hit = None if base is None else base.numpy()
        rows = zip(spans, scores.example_id.tolist(), scores.member.tolist(), strict=True)
        for row, (own, example_id, member) in enumerate(rows):
            for span in own:
                inside = ends[row, span.start : span.end]
                end = span.start + int(inside.argmax()) if inside.any() else span.end
                if end == span.start:
                    continue  # nothing is written once the text has ended
                of_base = None if base_hit is None else bool(base_hit[row, span.start : end].all())
                written = bool(hit[row, span.start : end].all())
                key = (example_id, span.start, span.end, span.kind)
                self._spans[key] = _SpanResult(span.kind, member, written, of_base)

    def compute(self, run: Pass) -> Result:
        """Rates over all spans, and by kind."""
        spans = self._spans.compute()
        shown = self._shown(spans, run.subject)
        if run.complete and self._once.first():
            members = [(span.kind, shown[_folded(span.kind)]) for span in spans.values() if span.member]
            kinds = Counter(kind if name == _folded(kind) else name for kind, name in members)
            if kinds:
                counts = [f"{n} {printable(kind, 40)}" for kind, n in sorted(kinds.items())]
                more = [f"and {len(counts) - _KINDS_LOGGED} more kinds"] if len(counts) > _KINDS_LOGGED else []
                log.info(
                    "Sensitive spans of the members%s: %s.", self.where, ", ".join([*counts[:_KINDS_LOGGED], *more])
                )
            elif self.none_found:
                log.info("%s", self.none_found)
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        names = _tags(shown.values())
        tags = {kind: names[called] for kind, called in shown.items()}
        for kind in [None, *sorted(tags)]:
            name = self.metric + ("" if kind is None else f"_{tags[kind]}")
            chosen = {key: span for key, span in spans.items() if kind in (None, _folded(span.kind))}
            for part, member in (("", True), ("_heldout", False)):
                mine = {key: span for key, span in chosen.items() if span.member == member}
                rate, of_base = name + part, f"{name}_base{part}"
                if mine:
                    metrics[rate], intervals[rate] = _rate((key[0], span.written) for key, span in mine.items())
                if mine and all(span.written_base is not None for span in mine.values()):
                    found = ((key[0], bool(span.written_base)) for key, span in mine.items())
                    metrics[of_base], intervals[of_base] = _rate(found)
        return Result(metrics, _by_example(spans, self.metric, self.written), intervals=intervals)

    def _shown(self, spans: dict[tuple[int, int, int, str], _SpanResult], subject: Subject) -> dict[str, str]:
        """Display name of each case-folded kind: a number if it is long, of one example, or contains a text."""
        of_example: dict[int, set[str]] = {}
        for (example_id, *_), span in spans.items():
            of_example.setdefault(example_id, set()).add(_folded(span.kind))
        kinds = set().union(*of_example.values())
        hidden = self._hidden.among(kinds, len(of_example), subject, whole=True)
        return shown_as(list(of_example.values()), hidden, _FEWEST, "kind")


def _rate(spans: Iterable[tuple[int, bool]]) -> tuple[float, Interval]:
    """The share of spans reproduced, and its interval, from each span's example id and outcome."""
    counts: dict[int, list[int]] = {}
    for example_id, written in spans:
        of = counts.setdefault(example_id, [0, 0])
        of[0] += written
        of[1] += 1
    written_of, all_of = torch.tensor(list(counts.values()), dtype=torch.float64).unbind(dim=1)
    return ratio_interval(written_of, all_of)


def _by_example(spans: dict[tuple[int, int, int, str], _SpanResult], column: str, written_column: str) -> ScoreTable:
    """One row per example with spans: the share reproduced, and their number."""
    written: dict[int, list[bool]] = {}
    member: dict[int, bool] = {}
    for (example_id, *_), span in sorted(spans.items()):
        written.setdefault(example_id, []).append(span.written)
        member[example_id] = span.member
    numbers = torch.tensor([sum(each) for each in written.values()], dtype=torch.float64)
    of = torch.tensor([len(each) for each in written.values()], dtype=torch.float64)
    return ScoreTable(
        torch.tensor(list(written), dtype=torch.int64),
        torch.tensor(list(member.values()), dtype=torch.bool),
        {column: numbers / of, written_column: numbers},
    )


def _folded(kind: str) -> str:
    """Kinds that differ only in case are the same."""
    return kind.strip().lower()


def _tags(kinds: Iterable[str]) -> dict[str, str]:
    """Each kind as part of a logged name that no other metric has, even for a kind "heldout"."""
    return safe_names(kinds, lambda name: _OTHERS.search(name) is not None)
