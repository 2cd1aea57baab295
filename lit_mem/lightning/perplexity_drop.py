"""Detect a sign of memorization: a sudden fall of the members' perplexity without one of held-out perplexity."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lit_mem.audit.measures.perplexity import Perplexity
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import ConfigError, check_range
from lit_mem.functional.paired import Change, change_of_gap, change_of_loss
from lit_mem.lightning.auditing import audit_of, measures, whole_check
from lit_mem.lightning.rules import check_names

log = logging.getLogger(__name__)

MEMBERS, HELDOUT = "memorization/perplexity_members", "val/perplexity"


class PerplexityDropWarning(Callback):
    """Warns if the members' perplexity falls sharply against held-out perplexity since the last validation.

    Learning lowers both; a fall for members alone is memorization. So the gap counts, log(held-out ÷ members'
    perplexity): a warning is logged if it grew by more than −log(1 − share) nats per token, beyond noise. The noise is
    the standard error over texts, each paired with itself in the last validation; noise alone triggers a warning in
    less than 1 % of validations, however small the share. The first comparison is with the validation before training,
    if that ran over all batches.

    It reads the losses of single texts from the callback `Perplexity`.

    Args:
        share: how far the members' perplexity must fall relative to held-out perplexity. 0.1: the ratio of
            the two falls by a tenth.
    """

    def __init__(self, share: float = 0.1) -> None:
        check_range("PerplexityDropWarning.share", share, above=0, below=1)
        self.share, self._limit = share, -math.log1p(-share)
        self._last: ScoreTable | None = None

    def state_dict(self) -> dict[str, Any]:
        """The last validation's losses, for a resumed run."""
        if self._last is None:
            return {}
        return {"example_id": self._last.example_id, "member": self._last.member, **self._last.columns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last validation's losses; earlier versions stored none."""
        state = dict(state_dict)
        if "example_id" in state:
            self._last = ScoreTable(state.pop("example_id"), state.pop("member"), state)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reject a run without perplexity; reset for a new run.

        Raises:
            ConfigError: the callback `Perplexity` is missing.
        """
        if stage == "fit":
            check_names([MEMBERS, HELDOUT], trainer, type(self).__name__)
            if _perplexity(trainer) is None:
                raise ConfigError(
                    f"{type(self).__name__} reads the losses of single texts, which no callback measures; add "
                    "lit_mem.callbacks.Perplexity to trainer.callbacks"
                )
            if trainer.global_step == 0:  # in a resumed run, load_state_dict follows
                self._last = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the last validation."""
        start = trainer.sanity_checking and whole_check(trainer) and not trainer.global_step
        measure = _perplexity(trainer)
        if trainer.state.fn != "fit" or (trainer.sanity_checking and not start) or measure is None:
            return
        now = losses(audit_of(trainer).result_of(measure).rows)
        if self._last is not None and now is not None:
            line = self.message(self._last, now)
            if line is not None:
                log.warning("%s.", line)
        self._last = now

    def message(self, before: ScoreTable, now: ScoreTable) -> str | None:
        """The warning; None if the gap did not grow by more than `share` allows, beyond noise.

        Args:
            before: `losses` of a validation.
            now: `losses` of a later one.
        """
        members, heldout = (_change(a, b) for a, b in zip(_sides(before), _sides(now), strict=True))
        gap = change_of_gap(members, heldout)
        if not gap.beyond_noise(above=self._limit):
            return None
        (m0, h0), (m1, h1) = (map(_perplexity_of, _sides(table)) for table in (before, now))
        return (
            f"Since the last validation the members' perplexity went from {m0:.2f} to {m1:.2f} and held-out perplexity "
            f"from {h0:.2f} to {h1:.2f}: the gap grew by {gap.value:.3f} nats per token (standard error "
            f"{gap.error:.3f}; PerplexityDropWarning.share {self.share:g} warns above {self._limit:.3f}), a sign "
            "of memorization"
        )


def losses(examples: ScoreTable | None) -> ScoreTable | None:
    """The `loss` (in nats, summed over tokens) and `n_tokens` of each text of the last pass; None on overflow."""
    if examples is None:
        return None
    table = examples.where(examples["n_tokens"] > 0)
    loss = table["perplexity"].log() * table["n_tokens"]
    if not bool(loss.isfinite().all()):
        return None
    return ScoreTable(table.example_id, table.member, {"loss": loss, "n_tokens": table["n_tokens"]})


def _perplexity(trainer: pl.Trainer) -> Perplexity | None:
    return next((one for one in measures(trainer) if isinstance(one, Perplexity)), None)


def _sides(table: ScoreTable) -> tuple[ScoreTable, ScoreTable]:
    return table.members(), table.nonmembers()


def _change(before: ScoreTable, now: ScoreTable) -> Change:
    """Change over the texts that are in both."""
    old, new = (table.where(_in(table.example_id, other.example_id)) for table, other in ((before, now), (now, before)))
    return change_of_loss(old["loss"], new["loss"], new["n_tokens"])


def _in(ids: Tensor, others: Tensor) -> Tensor:
    return torch.isin(ids, others)


def _perplexity_of(table: ScoreTable) -> float:
    return math.exp((table["loss"].sum() / table["n_tokens"].sum()).item())
