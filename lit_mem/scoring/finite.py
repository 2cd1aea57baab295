"""Check scores and weights for non-finite values."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lit_mem.types import Batch, TokenScores


def not_finite(scores: TokenScores, batch: Batch) -> str | None:
    """Describe the first text of a batch with a non-finite loss by its origin; None if there is none."""
    sides = [("the model's", scores.logprob)]
    if scores.reference is not None:
        sides.append(("the reference model's", scores.reference))
    for whose, logprob in sides:
        total = logprob.cpu().double().sum(dim=1)
        bad = (~total.isfinite()).nonzero()
        if len(bad):
            row = int(bad[0])
            records = batch.get("records")
            origin = records[row].origin if records is not None else ""
            name = origin or f"example {int(batch['example_id'][row])}"
            return f"{whose} loss on {name} is {-total[row].item()}"
    return None


def weight_not_finite(parameters: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """Name of the first trainable parameter that is not finite; None if there is none."""
    return next((name for name, p in parameters if p.requires_grad and not bool(p.isfinite().all())), None)
