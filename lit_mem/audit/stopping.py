"""Decide when training stops because of memorization, for any trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.audit.judging import judged_texts
from lit_mem.audit.known import Known
from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.functional.interval import Interval
from lit_mem.functional.numbers import shown
from lit_mem.functional.planning import Scored, planned_interval, stops_at
from lit_mem.functional.spending import ALPHA, Spending, rescaled

Beyond = Sequence[tuple[Threshold, str, float]]
"""Thresholds that a pass exceeds, each with the name that was read and its value (`Limits.passed`)."""

_SUREST: Final = 1 - 1e-12
"""Level used when there are more passes than planned and no error probability is left to spend."""


class Stopping:
    """Counts the passes that exceed thresholds.

    With `limits.lower_bound` a metric that has an interval is read at its safe end. The level is spread over all
    passes, and over all thresholds if one is enough: a run whose metrics truly stay within the limits is stopped by
    one of them with a probability of at most `ALPHA`, however many passes are judged. `patience` does not enter this
    bound: consecutive passes score the same texts, so their noise is correlated.

    Args:
        limits: the thresholds.
        stop_when: "any" threshold is exceeded, or "all" of them at once.
        patience: number of consecutive passes over the limits before training stops.

    Attributes:
        over_in_a_row: number of consecutive passes over the limits so far.
        reason: why training stops; None while it continues.
        planned: total number of passes, those judged included; None if not known.
    """

    def __init__(self, limits: Limits, stop_when: str, patience: int) -> None:
        self.limits, self.stop_when, self.patience = limits, stop_when, patience
        self.planned: int | None = None
        self.start_over()

    def start_over(self) -> None:
        """Reset the counts for a new run."""
        self.over_in_a_row = 0
        self.reason: str | None = None
        self._spending = Spending()

    @property
    def looks(self) -> int:
        """Number of passes judged."""
        return self._spending.looks

    @property
    def level(self) -> float:
        """Confidence level of the two-sided intervals whose safe ends judge the next pass."""
        # With "all", every threshold must be exceeded, so no correction for several thresholds is needed.
        thresholds = 1 if self.stop_when == "all" else len(self.limits)
        return min(1 - 2 * self._spending.next(self.planned) / thresholds, _SUREST)

    def beyond(self, metrics: Mapping[str, float], intervals: Mapping[str, Interval], known: Known, who: str) -> Beyond:
        """The thresholds that a pass exceeds.

        Args:
            metrics: metrics of the pass, by name.
            intervals: intervals by metric name. If only the 95 % ends are among the metrics, they are rescaled.
            known: metrics that may be logged.
            who: what sets the thresholds, for messages.

        Raises:
            ConfigError: a metric of this name is never logged, or cannot be measured in this run.
        """
        level = self.level

        def ends(threshold: Threshold) -> tuple[float, float] | None:
            name = threshold.name
            if name in intervals:
                return intervals[name](level)
            if f"{name}_low" in metrics and f"{name}_high" in metrics:
                return rescaled(metrics[name], (metrics[f"{name}_low"], metrics[f"{name}_high"]), level)
            return None

        return self.limits.passed(metrics, known, who, ends)

    def is_over(self, beyond: Beyond) -> bool:
        """Whether a pass counts as over the limits."""
        return len(beyond) == len(self.limits) if self.stop_when == "all" else bool(beyond)

    def count(self, over: bool, beyond: Beyond) -> bool:
        """Count one pass.

        Args:
            over: whether the pass is over the limits.
            beyond: the thresholds it exceeds.

        Returns:
            Whether training should stop.
        """
        level = self.level
        self._spending.spend(self.planned)
        self.over_in_a_row = self.over_in_a_row + 1 if over else 0
        if self.over_in_a_row < self.patience:
            return False
        at = f" at {100 * level:.4g} %"
        self.reason = "; ".join(
            f"{name} is {value:.4g}{at if name != threshold.name else ''}, the threshold is {threshold}"
            for threshold, name, value in beyond
        )
        return True

    def certainty(self) -> str:
        """The bound on false stops, to append to a message; "" without `lower_bound`."""
        if not self.limits.lower_bound:
            return ""
        several = f"{len(self.limits)} thresholds at " if len(self.limits) > 1 and self.stop_when == "any" else ""
        many = "any number of validations" if self.planned is None else f"{self.planned} validations"
        return f" Noise alone stops at most {100 * ALPHA:g} % of runs, over {several}{many} together."

    def counts(self) -> dict[str, Any]:
        """State for resuming a run."""
        spent = self._spending
        return {"over_in_a_row": self.over_in_a_row, "reason": self.reason, "looks": spent.looks, "left": spent.left}

    def load_counts(self, counts: Mapping[str, Any]) -> None:
        """Restore the state of `counts`; values that an older version did not store count as unspent."""
        self.over_in_a_row, self.reason = counts["over_in_a_row"], counts.get("reason")
        self._spending.looks = counts.get("looks", 0)
        self._spending.left = counts.get("left", ALPHA)


def planned_stop(threshold: Threshold, scored: Scored, level: float = 0.95) -> str:
    """When a threshold with `lower_bound` can be expected to act.

    Args:
        threshold: threshold on an AUROC, with a limit in (0, 1).
        scored: number of scored texts, at least 1 of each set.
        level: confidence level of the two-sided interval, in (0, 1).
    """
    limit, of_scored = threshold.limit, scored
    scored = judged_texts(threshold.name, of_scored)
    half = "" if scored is of_scored else " (half of those scored)"
    low, high = planned_interval(limit, scored.members, scored.heldout, level)
    at = stops_at(limit, scored.members, scored.heldout, threshold.above, level)
    end, side = ("low", "above") if threshold.above else ("high", "below")
    planned = (
        f"{threshold} is read at the {end} end of the {100 * level:.4g} % interval: with {scored.members:,} members "
        f"and {scored.heldout:,} held-out texts{half} the interval at {limit:g} is about {shown(low)} to {shown(high)}"
    )
    if at is None:
        best = "1" if threshold.above else "0"
        return f"{planned}. Even at {best} it contains {limit:g}, so the threshold never acts: score more texts."
    return f"{planned}, and the threshold acts from about {shown(at)} on, not as soon as the value is {side} {limit:g}."
