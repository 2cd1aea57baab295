"""When training ends because of what the model memorizes, whatever trains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_mem.audit.judging import judged_texts
from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.functional.numbers import shown
from lit_mem.functional.planning import Scored, planned_interval, stops_at

Beyond = Sequence[tuple[Threshold, str, float]]
"""Thresholds that a pass is beyond, each with the name that was read and its value (`Limits.passed`)."""


class Stopping:
    """Counts the passes that are beyond thresholds.

    Args:
        limits: the thresholds.
        stop_when: "any" threshold is passed, or "all" of them at once.
        patience: how many passes in a row it must be so.

    Attributes:
        over_in_a_row: how many it was so.
        reason: why training is to end; None while it is not.
        looks: how many passes were judged.
    """

    def __init__(self, limits: Limits, stop_when: str, patience: int) -> None:
        self.limits, self.stop_when, self.patience = limits, stop_when, patience
        self.over_in_a_row = 0
        self.reason: str | None = None
        self.looks = 0

    def is_over(self, beyond: Beyond) -> bool:
        """Whether a pass counts."""
        return len(beyond) == len(self.limits) if self.stop_when == "all" else bool(beyond)

    def count(self, over: bool, beyond: Beyond) -> bool:
        """Count one pass.

        Args:
            over: whether it counts.
            beyond: its thresholds that were passed.

        Returns:
            Whether training is to end.
        """
        self.looks += 1
        self.over_in_a_row = self.over_in_a_row + 1 if over else 0
        if self.over_in_a_row < self.patience:
            return False
        self.reason = "; ".join(
            f"{name} is {value:.4g}, the threshold is {threshold}" for threshold, name, value in beyond
        )
        return True

    def counts(self) -> dict[str, Any]:
        """What a run that goes on needs."""
        return {"over_in_a_row": self.over_in_a_row, "reason": self.reason, "looks": self.looks}


def planned_stop(threshold: Threshold, scored: Scored) -> str:
    """What to expect of a threshold with `lower_bound`.

    Args:
        threshold: on an AUROC, its limit in (0, 1).
        scored: how many texts are scored, at least 1 of each set.
    """
    limit, of_scored = threshold.limit, scored
    scored = judged_texts(threshold.name, of_scored)
    half = "" if scored is of_scored else " (half of those scored)"
    low, high = planned_interval(limit, scored.members, scored.heldout)
    at = stops_at(limit, scored.members, scored.heldout, threshold.above)
    end, side = ("low", "above") if threshold.above else ("high", "below")
    planned = (
        f"{threshold} is read at the {end} end of the 95 % interval: with {scored.members:,} members and "
        f"{scored.heldout:,} held-out texts{half} the interval at {limit:g} is about {shown(low)} to {shown(high)}"
    )
    if at is None:
        best = "1" if threshold.above else "0"
        return f"{planned}. Even at {best} it holds {limit:g}, so the threshold never acts: score more texts."
    return f"{planned}, and the threshold acts from about {shown(at)} on, not as soon as the value is {side} {limit:g}."
