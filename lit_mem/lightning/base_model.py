"""What the base model by itself makes of the texts, beside the metrics of a model that was tuned elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import lightning.pytorch as pl

from lit_mem.attacks.base import Attack
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.zlib import Zlib
from lit_mem.audit.measures import MembershipInference, Perplexity
from lit_mem.audit.measures.perplexity import perplexities
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.errors import MetricError
from lit_mem.functional.auroc import auroc
from lit_mem.lightning.auditing import measures
from lit_mem.lightning.headline import log_metrics
from lit_mem.lightning.tests_alike import TestsAlike
from lit_mem.types import TokenScores, holds_canaries

_LIKELIHOODS: Final = (Loss, Zlib, MinK)
"""Attacks that read nothing but what the reference's scores hold too."""


class BaseModel(TestsAlike):
    """Perplexity and AUROCs of the reference model, in `validate` and `test`; a fit has them before its first step.

    It computes nothing of its own: it reads the reference's scores where another callback has them computed. Logged,
    beside what `Perplexity` and `MembershipInference` log of the tuned model: `val/perplexity_base`,
    `memorization/perplexity_members_base`, `memorization/perplexity_gap_base`, and for each of the run's attacks
    `loss`, `zlib` and `min_k` `mia/<name>_auroc_base` with `_low` and `_high`. An AUROC of the base other than 0.5 is
    a difference between the two sets of texts, or pretraining, and not fine-tuning.
    """

    def __init__(self) -> None:
        self._attacks: dict[str, Attack] = {}
        self._perplexity = False
        self._table = ExampleTable(["logprob", "n_tokens"])
        self._may_leave_out = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find out what the run's other callbacks measure."""
        self._perplexity, self._attacks = False, {}
        if stage in ("validate", "test") and not trainer.barebones:
            for one in measures(trainer):
                self._perplexity |= isinstance(one, Perplexity)
                attacks = one.attacks if isinstance(one, MembershipInference) else {}
                self._attacks |= {name: attack for name, attack in attacks.items() if type(attack) in _LIKELIHOODS}
        self._may_leave_out = True
        self._table = ExampleTable(["logprob", "n_tokens", *self._attacks])

    def _leave_out_what_cannot_be(self, base: TokenScores) -> None:
        """Go without attacks whose input a user's own module does not give; `MembershipInference` warns of them."""
        self._may_leave_out = False
        for name, attack in list(self._attacks.items()):
            try:
                attack(base)
            except MetricError:
                del self._attacks[name]
        self._table = ExampleTable(["logprob", "n_tokens", *self._attacks])

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over."""
        self._table.reset()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Judge the batch by the reference's log-probabilities."""
        wanted = self._perplexity or self._attacks
        if not wanted or not isinstance(outputs, TokenScores) or outputs.reference is None or holds_canaries(batch):
            return
        base = replace(outputs, logprob=outputs.reference, reference=None, mean=None, std=None, sampled={})
        if self._may_leave_out:
            self._leave_out_what_cannot_be(base)
        kept = base.n_tokens > 0
        values = {"logprob": base.total_logprob, "n_tokens": base.n_tokens}
        values |= {name: attack(base) for name, attack in self._attacks.items()}
        rows = {name: value[kept] for name, value in values.items()}
        self._table.update(base.example_id.cpu()[kept], base.member.cpu()[kept], rows)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the base's metrics; none where the reference was not scored."""
        if self._perplexity or self._attacks:
            metrics = self._metrics(self._table.compute(), "test" if trainer.testing else "val")
            log_metrics(pl_module, metrics)

    def _metrics(self, table: ScoreTable, stage: str) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if self._perplexity:
            metrics = {f"{name}_base": value for name, value in perplexities(table, stage).items()}
        if table.member.any() and not table.member.all():
            for name in self._attacks:
                area = auroc(table[name], table.member)
                ends = zip(("", "_low", "_high"), area, strict=True)
                metrics |= {f"mia/{name}_auroc_base{end}": value for end, value in ends}
        return metrics
