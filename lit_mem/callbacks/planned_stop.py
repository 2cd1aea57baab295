"""Before training: how wide the intervals will be, and at which value a threshold on their safe end acts."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lit_mem.callbacks.base import measures, whole_check
from lit_mem.callbacks.thresholds import Limits, Threshold
from lit_mem.functional.planning import Scored, planned_interval, stops_at
from lit_mem.report.numbers import shown


def planned_stops(limits: Limits, trainer: pl.Trainer) -> list[str]:
    """A line for each threshold on an AUROC that is read at the safe end of its interval; empty without such."""
    if not limits.lower_bound:
        return []
    lines = []
    for threshold in limits:
        scored = scored_for(threshold.name, trainer) if threshold.is_auroc and 0 < threshold.limit < 1 else None
        if scored is not None and scored.members and scored.heldout:
            lines.append(planned_stop(threshold, scored))
    return lines


def planned_stop(threshold: Threshold, scored: Scored) -> str:
    """What to expect of a threshold with `lower_bound`.

    Args:
        threshold: on an AUROC, its limit in (0, 1).
        scored: how many texts the AUROC is computed from, at least 1 of each set.
    """
    limit = threshold.limit
    low, high = planned_interval(limit, scored.members, scored.heldout)
    at = stops_at(limit, scored.members, scored.heldout, threshold.above)
    end, side = ("low", "above") if threshold.above else ("high", "below")
    planned = (
        f"{threshold} is read at the {end} end of the 95 % interval: with {scored.members:,} members and "
        f"{scored.heldout:,} held-out texts the interval at {limit:g} is about {shown(low)} to {shown(high)}"
    )
    if at is None:
        best = "1" if threshold.above else "0"
        return f"{planned}. Even at {best} it holds {limit:g}, so the threshold never acts: score more texts."
    return f"{planned}, and the threshold acts from about {shown(at)} on, not as soon as the value is {side} {limit:g}."


def scored_for(name: str, trainer: pl.Trainer) -> Scored | None:
    """How many texts a metric of the last pass was computed from; None where that is not known.

    A check before training over some of the batches does not count; the sizes of the data module's sets then do.
    """
    data: Any = getattr(trainer, "datamodule", None)
    of_members = of_heldout = None
    if hasattr(data, "train") and hasattr(data, "heldout") and hasattr(data, "members"):
        canaries = {example.example_id for example in getattr(data, "canaries", ())}
        of_members = len({example.example_id for example in data.train} - canaries)
        of_heldout = len(data.heldout)
    measure = next((one for one in measures(trainer) if name in one.metric_names()), None)
    if measure is None:
        return None
    if measure.of_canaries:
        of_members = of_heldout = None
    if measure.examples is not None and (trainer.global_step or whole_check(trainer)):
        n, members = len(measure.examples), int(measure.examples.member.sum())
        return Scored(members, n - members, of_members, of_heldout)
    if of_members is None or of_heldout is None:
        return None
    return Scored(len(data.members), of_heldout, of_members, of_heldout)
