"""Whether scores and weights are numbers."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lit_mem.types import Batch, TokenScores


def not_finite(scores: TokenScores, batch: Batch) -> str | None:
    """What to say of the first text of a batch whose loss is non-finite: where it came from. None: there is none."""
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
    """Name of the first parameter that training changes and that is not finite; None: there is none."""
    return next((name for name, p in parameters if p.requires_grad and not bool(p.isfinite().all())), None)
