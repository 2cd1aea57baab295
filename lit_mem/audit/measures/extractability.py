"""Extraction measures computed from the scoring pass: on every validated text, without generation."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_

from lit_mem.audit.known import Known
from lit_mem.audit.measure import NO_BASE, Measure, Pass, Result, means_by_set, with_ends
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable
from lit_mem.errors import ConfigError
from lit_mem.extraction.discoverable import Discoverable
from lit_mem.extraction.exact_memorization import ExactMemorization
from lit_mem.extraction.ngram_hits import NgramHits
from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.extraction.strength import ExtractionStrength
from lit_mem.functional.ends import ends_in
from lit_mem.types import Batch, Needs, TokenScores


class Extractability(Measure):
    """Measures of extraction that need no generation, over all validated texts.

    Logged for each measure, as means: `extraction/<name>` (members) and `extraction/<name>_heldout`; and the base
    model's `extraction/<name>_base` and `_base_heldout`, except for measures under sampling, for which the base is not
    scored; each with its 95 % interval `_low` and `_high` (`functional.rate`). Columns: `extraction/<name>` and
    `extraction/<name>_base`.

    Args:
        measures: measures by logged name. None: `exact_memorization`, `extraction_strength`, `ngram_hits` (runs of 4
            to 6 tokens) and `discoverable` (a suffix sampled within 1000 tries with probability one half, top 40).
        base: measure the base model too.
    """

    def __init__(self, measures: dict[str, ScoredMeasure] | None = None, base: bool = True) -> None:
        if measures is not None and not measures:
            raise ConfigError("Extractability.measures is empty; expected at least one measure")
        self.measures: dict[str, ScoredMeasure] = measures or {
            "exact_memorization": ExactMemorization(),
            "extraction_strength": ExtractionStrength(),
            "ngram_hits": NgramHits(),
            "discoverable": Discoverable(),
        }
        self.base = self._of_base = base
        self.needs = reduce(or_, (measure.needs for measure in self.measures.values()), Needs(reference=base))
        self._table = ExampleTable(self._columns())

    def _columns(self) -> list[str]:
        of_base = [name for name, m in self.measures.items() if self.base and not m.needs.sampling]
        return [*self.measures, *(f"{name}_base" for name in of_base)]

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Restore all metrics, including those skipped with an earlier subject."""
        self.base = self._of_base
        self._table = ExampleTable(self._columns())

    def names(self) -> list[str]:
        """Metrics of all measures."""
        return with_ends(f"extraction/{column}{part}" for column in self._columns() for part in ("", "_heldout"))

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._table.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Measure the batch's examples."""
        scores = replace(scores, ends=ends_in(batch, self.ends))
        values = {name: measure(scores) for name, measure in self.measures.items()}
        if self.base and scores.reference is not None and scores.reference_hit is not None:
            base = replace(scores, logprob=scores.reference, hit=scores.reference_hit)
            values |= {c: self.measures[c.removesuffix("_base")](base) for c in self._columns() if c not in values}
        elif self.base:  # a custom module without a reference
            before, self.base = set(self.names()), False
            self._table = ExampleTable(self._columns())
            self.leave_out(before - set(self.names()), NO_BASE)
        scored = scores.n_tokens > 0
        values = {name: value[scored] for name, value in values.items()}
        self._table.update(scores.example_id.cpu()[scored], scores.member.cpu()[scored], values)

    def compute(self, run: Pass) -> Result:
        """Means over members and over held-out texts."""
        table = self._table.compute()
        rows = table.renamed({f"extraction/{column}": column for column in self._columns()})
        return replace(means_by_set(table, self._columns(), "extraction"), rows=rows)
