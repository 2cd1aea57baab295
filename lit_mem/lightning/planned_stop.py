"""Before training: expected interval widths, and the values at which thresholds on their safe ends act."""

from __future__ import annotations

import math

import lightning.pytorch as pl
import torch
from torch import Tensor

from lit_mem.audit.stopping import planned_stop
from lit_mem.audit.table import ScoreTable
from lit_mem.audit.thresholds import Limits
from lit_mem.functional.planning import Scored
from lit_mem.lightning.auditing import audit_of, measures, whole_check


def planned_looks(trainer: pl.Trainer) -> int | None:
    """Number of validations in a whole fit, from its first step on; None if not known.

    Args:
        trainer: trainer of the fit, once its data is loaded.
    """
    batches, every = float(trainer.num_training_batches), trainer.check_val_every_n_epoch
    epochs = math.inf if trainer.max_epochs in (None, -1) else float(trainer.max_epochs or 0)
    if trainer.max_steps > 0 and batches:
        epochs = min(epochs, trainer.max_steps * trainer.accumulate_grad_batches / batches)
    if not math.isfinite(epochs) or not math.isfinite(batches):
        return None
    between = float(trainer.val_check_batch or math.inf)  # type: ignore[attr-defined]
    if every is None:  # counted over epochs
        looks = epochs * batches / between
    elif math.isfinite(between):
        looks = epochs // every * max(1, batches // between)
    else:
        looks = epochs // every
    return max(1, math.ceil(looks))


def planned_stops(limits: Limits, trainer: pl.Trainer, level: float) -> list[str]:
    """One line for each threshold on an AUROC that is read at the safe end of its interval; empty without any.

    Args:
        limits: the thresholds.
        trainer: trainer of the fit.
        level: confidence level of the two-sided interval that judges the first validation.
    """
    if not limits.lower_bound:
        return []
    lines = []
    for threshold in limits:
        scored = scored_for(threshold.name, trainer) if threshold.is_auroc and 0 < threshold.limit < 1 else None
        if scored is not None and scored.members and scored.heldout:
            lines.append(planned_stop(threshold, scored, level))
    return lines


def scored_for(name: str, trainer: pl.Trainer) -> Scored | None:
    """Number of texts scored for a metric; None if not known.

    Args:
        name: name of the metric.
        trainer: its callback that logs the metric has the texts of the last pass; after a sanity check over some of
            the batches, the data module's number is used instead.
    """
    of_data = getattr(getattr(trainer, "datamodule", None), "scored_texts", None)
    found = of_data() if callable(of_data) else None
    known = found if isinstance(found, Scored) else None  # a custom data module may have another attribute of this name
    if (own := audit_of(trainer).own) is not None:
        known = own.scored
    measure = next((one for one in measures(trainer) if name in one.names()), None)
    if measure is None:
        return None
    if measure.of_canaries:
        known = None
    examples = audit_of(trainer).result_of(measure).rows
    if examples is None or (trainer.state.fn == "fit" and not trainer.global_step and not whole_check(trainer)):
        return known
    member = examples.member[_used(name, examples)]
    n = int(member.sum())
    return Scored(n, len(member) - n, *((None, None) if known is None else (known.of_members, known.of_heldout)))


def _used(name: str, table: ScoreTable) -> Tensor:
    """(N,) bool: the rows from which an AUROC is computed; for `mia/combined_auroc`, those of fit and evaluation."""
    column = name.partition("_auroc")[0]
    others = [values for other, values in table.columns.items() if other.startswith("mia/") and other != column]
    read = others if column == "mia/combined" else [table[column]] if column in table.columns else []
    used = torch.ones(len(table), dtype=torch.bool)
    for values in read:
        used &= ~values.isnan()
    return used
