"""Extraction from any position of a long text, computed from the scoring pass."""

from __future__ import annotations

import logging
import math
from typing import Final

import torch

from lit_mem.audit.known import Known
from lit_mem.audit.measure import NO_BASE, Measure, Pass, Result, means_by_set, with_ends
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable
from lit_mem.errors import check_range
from lit_mem.extraction.sliding import longest_run, suffix_logprobs
from lit_mem.files.once import Once
from lit_mem.functional.ends import ends_in
from lit_mem.scoring.windows import context_begins
from lit_mem.types import Batch, Needs, TokenScores

log = logging.getLogger(__name__)

_OWN: Final = ("largest_p_z", "longest_run")
_RATES: Final = ("largest_p_z", "largest_p_z_base")


class SlidingExtraction(Measure):
    """The most extractable part of a long text, at any position; no generation.

    For each text with `prefix` + `suffix` scored tokens or more, and each that is read in windows (`data.chunk`):

    - `largest_p_z`: the largest probability, over all positions, of sampling the next `suffix` tokens one by one from
      the model's distribution, given the text before them: at least `prefix` tokens, and all that the window contains.
      NaN for a text without such a position.
    - `longest_run`: tokens of the longest run that greedy decoding predicts correctly, each given the true text before
      it. It continues across the border of two windows if the second contains `prefix` tokens before it.

    Both read each token once, as scored; a suffix lies within one window. Neither extends past an end token, where
    decoding stops. Logged as means over these texts: `extraction/<name>`, `_heldout`, `_base` and `_base_heldout`, for
    `largest_p_z` with a 95 % interval `_low` and `_high`; nothing without such texts. Columns: `extraction/<name>` and
    `extraction/<name>_base`.

    Source: Cooper et al. 2025, "Extracting memorized pieces of (copyrighted) books from open-weight language models"
    (arXiv 2505.12546), with p_z of Hayes et al. 2024 (arXiv 2410.19482). There the model sees only the prefix; here
    all of the window before the suffix.

    Args:
        prefix: minimum number of tokens of the text before a suffix.
        suffix: number of its tokens, z.
        base: measure the base model too.
    """

    def __init__(self, prefix: int = 50, suffix: int = 50, base: bool = True) -> None:
        check_range("SlidingExtraction.prefix", prefix, at_least=1)
        check_range("SlidingExtraction.suffix", suffix, at_least=1)
        self.prefix, self.suffix = prefix, suffix
        self.base = self._of_base = base
        self.needs = Needs(reference=base)
        self._table = ExampleTable(self._columns())
        self._bos: int | None = None
        self._once = Once()

    def _columns(self) -> list[str]:
        return [*_OWN, *(f"{name}_base" for name in _OWN if self.base)]

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Restore all metrics, including those skipped with an earlier subject."""
        self.base = self._of_base
        self._table = ExampleTable(self._columns())

    def names(self) -> list[str]:
        """Names of both metrics."""
        every = [(column, f"extraction/{column}{part}") for column in self._columns() for part in ("", "_heldout")]
        return [one for column, name in every for one in (with_ends([name]) if column in _RATES else [name])]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._table.reset()
        self._bos = None if subject.lacks("tokenizer") else getattr(subject.tokenizer, "bos_token_id", None)

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Measure the long texts of the batch."""
        hits = scores.reference_hit
        if self.base and (scores.reference is None or hits is None):  # a custom module without a reference
            before, self.base = set(self.names()), False
            self._table = ExampleTable(self._columns())
            self.leave_out(before - set(self.names()), NO_BASE)
        windows = batch.get("windows", [None] * len(scores.example_id))
        long = scores.n_tokens >= self.prefix + self.suffix
        long |= torch.tensor([text is not None for text in windows]) & (scores.n_tokens > 0)
        if not bool(long.any()):
            return
        read = scores.mask.cpu()
        ends = ends_in(batch, self.ends)
        read = read if ends is None else read & ~ends.cpu()
        models = {"": (scores.logprob.cpu(), scores.hit.cpu())}
        if self.base and scores.reference is not None and hits is not None:
            models["_base"] = scores.reference.cpu(), hits.cpu()
        values: dict[str, list[float]] = {column: [] for column in self._columns()}
        for row in long.nonzero().flatten().tolist():
            begins = context_begins(windows[row], read.shape[1]).clamp(min=self._head(batch, row))
            for whose, (logprob, hit) in models.items():
                found = suffix_logprobs(logprob[row], read[row], begins, self.prefix, self.suffix)
                values[f"largest_p_z{whose}"].append(math.exp(found.max().item()) if len(found) else math.nan)
                run = longest_run(hit[row], read[row], begins, self.prefix)
                values[f"longest_run{whose}"].append(run)
        columns = {name: torch.tensor(each, dtype=torch.float64) for name, each in values.items()}
        self._table.update(scores.example_id.cpu()[long], scores.member.cpu()[long], columns)

    def _head(self, batch: Batch, row: int) -> int:
        """1 if the row starts with a BOS token, which is not part of the text; else 0."""
        return int("input_ids" in batch and self._bos is not None and int(batch["input_ids"][row, 0]) == self._bos)

    def compute(self, run: Pass) -> Result:
        """Means over the long texts of each set."""
        table = self._table.compute()
        if not len(table):
            return Result()
        if bool(table["largest_p_z"].isnan().all()) and run.complete and self._once.first():
            log.info(
                "No extraction/largest_p_z: no window contains %d tokens of a text and %d more to extract; lower "
                "SlidingExtraction.prefix and suffix, or raise data.chunk.tokens.", self.prefix, self.suffix,
            )  # fmt: skip
        found = Result(rows=table.renamed({f"extraction/{column}": column for column in self._columns()}))
        for column in self._columns():
            there = table.where(~table[column].isnan())
            means = means_by_set(there, [column], "extraction")
            found = found.plus(means if column in _RATES else Result(means.metrics))
        return found
