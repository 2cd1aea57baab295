"""Perplexity and AUROCs of the base model, for comparison with those of a model that was tuned elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from lit_mem.attacks.base import Attack
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.zlib import Zlib
from lit_mem.audit.measure import Measure, Pass, Result, with_ends
from lit_mem.audit.measures.membership import MembershipInference
from lit_mem.audit.measures.perplexity import Perplexity, perplexities
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.interval import Interval
from lit_mem.types import Batch, TokenScores

_LIKELIHOODS: Final = (Loss, Zlib, MinK)
"""Attacks that read only scores which the reference has too."""


class BaseMetrics(Measure):
    """Perplexity and AUROCs of the reference model, from reference scores that other measures need.

    Logged, beside what `Perplexity` and `MembershipInference` log of the tuned model: `val/perplexity_base`,
    `memorization/perplexity_members_base`, `memorization/perplexity_gap_base`, and for the attacks `loss`, `zlib` and
    `min_k`, if the run has them, `mia/<name>_auroc_base` with `_low` and `_high`. If an AUROC of the base differs from
    0.5, the sets differ in distribution or were seen in pretraining; fine-tuning is not the cause.

    Args:
        beside: the measures of the run.
    """

    def __init__(self, beside: Iterable[Measure] = ()) -> None:
        self.perplexity, self.attacks = False, dict[str, Attack]()
        for one in beside:
            self.perplexity |= isinstance(one, Perplexity)
            attacks = one.attacks if isinstance(one, MembershipInference) else {}
            self.attacks |= {name: attack for name, attack in attacks.items() if type(attack) in _LIKELIHOODS}
        self._may_leave_out = True
        self._table = self._empty()

    def _empty(self) -> ExampleTable:
        return ExampleTable(["logprob", "n_tokens", *self.attacks])

    def names(self) -> list[str]:
        """Names of the base model's metrics."""
        stages = ("val", "test")
        own = [f"{stage}/perplexity_base" for stage in stages] if self.perplexity else []
        own += [f"memorization/perplexity_{of}_base" for of in ("members", "gap")] if self.perplexity else []
        return [*own, *with_ends(f"mia/{name}_auroc_base" for name in self.attacks)]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._table.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch with the reference's log-probabilities."""
        if scores.reference is None or not (self.perplexity or self.attacks):
            return
        base = replace(scores, logprob=scores.reference, reference=None, mean=None, std=None, sampled={})
        if self._may_leave_out:
            self._drop_unsupported(base)
        kept = base.n_tokens > 0
        values = {"logprob": base.total_logprob, "n_tokens": base.n_tokens}
        values |= {name: attack(base) for name, attack in self.attacks.items()}
        rows = {name: value[kept] for name, value in values.items()}
        self._table.update(base.example_id.cpu()[kept], base.member.cpu()[kept], rows)

    def _drop_unsupported(self, base: TokenScores) -> None:
        """Drop attacks whose input a custom module does not give; `MembershipInference` warns about them."""
        self._may_leave_out = False
        for name, attack in list(self.attacks.items()):
            try:
                attack(base)
            except MetricError:
                del self.attacks[name]
        self._table = self._empty()

    def compute(self, run: Pass) -> Result:
        """Metrics of the base model; none if the reference was not scored."""
        if not (self.perplexity or self.attacks):
            return Result()
        return self._of(self._table.compute(), "test" if run.stage == "test" else "val")

    def _of(self, table: ScoreTable, stage: str) -> Result:
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        if self.perplexity:
            metrics = {f"{name}_base": value for name, value in perplexities(table, stage).items()}
        if table.member.any() and not table.member.all():
            for name in self.attacks:
                area = f"mia/{name}_auroc_base"
                metrics[area], intervals[area] = auroc_interval(table[name], table.member)
        return Result(metrics, intervals=intervals)
