"""When training ends because of what the model memorizes, whatever trains it."""

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
"""Thresholds that a pass is beyond, each with the name that was read and its value (`Limits.passed`)."""

_SUREST: Final = 1 - 1e-12
"""Where more passes come than were planned, nothing is left to be wrong with."""


class Stopping:
    """Counts the passes that are beyond thresholds.

    With `limits.lower_bound` a metric that has an interval is read at the safe end, at a level that is spread over all
    thresholds of which one is enough and over all passes: the chance that a run whose metrics truly stay within the
    limits is ever stopped by one of them is at most `ALPHA`, however often it is looked at. `patience` is no part of
    that: passes in a row are of the same texts, so noise that is over in one is likely to be over in the next.

    Args:
        limits: the thresholds.
        stop_when: "any" threshold is passed, or "all" of them at once.
        patience: how many passes in a row it must be so.

    Attributes:
        over_in_a_row: how many it was so.
        reason: why training is to end; None while it is not.
        planned: how many passes there will be, those that were judged included; None: not known.
    """

    def __init__(self, limits: Limits, stop_when: str, patience: int) -> None:
        self.limits, self.stop_when, self.patience = limits, stop_when, patience
        self.planned: int | None = None
        self.start_over()

    def start_over(self) -> None:
        """Forget all passes, as for a new run."""
        self.over_in_a_row = 0
        self.reason: str | None = None
        self._spending = Spending()

    @property
    def looks(self) -> int:
        """How many passes were judged."""
        return self._spending.looks

    @property
    def level(self) -> float:
        """Confidence of the two-sided intervals whose safe ends the next pass is judged by."""
        # One threshold of several is enough to stop, or all are needed: then the least sure of them is sure enough.
        thresholds = 1 if self.stop_when == "all" else len(self.limits)
        return min(1 - 2 * self._spending.next(self.planned) / thresholds, _SUREST)

    def beyond(self, metrics: Mapping[str, float], intervals: Mapping[str, Interval], known: Known, who: str) -> Beyond:
        """The thresholds that a pass is beyond.

        Args:
            metrics: of the pass, by name.
            intervals: of those that have one, by the metric's name. Where only the ends of 95 % are among the metrics,
                they are rescaled.
            known: what may be logged.
            who: sets the thresholds, for messages.

        Raises:
            ConfigError: nothing logs a metric of this name, or it cannot be measured in this run.
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
        """How sure it is that noise alone did not end training, for the end of a line; "" where nothing is said."""
        if not self.limits.lower_bound:
            return ""
        several = f"{len(self.limits)} thresholds at " if len(self.limits) > 1 and self.stop_when == "any" else ""
        many = "any number of validations" if self.planned is None else f"{self.planned} validations"
        return f" Noise alone stops at most {100 * ALPHA:g} % of runs, over {several}{many} together."

    def counts(self) -> dict[str, Any]:
        """What a run that goes on needs."""
        spent = self._spending
        return {"over_in_a_row": self.over_in_a_row, "reason": self.reason, "looks": spent.looks, "left": spent.left}

    def go_on_from(self, counts: Mapping[str, Any]) -> None:
        """Go on from what `counts` gave; of an earlier version's, with what it did not know of left unspent."""
        self.over_in_a_row, self.reason = counts["over_in_a_row"], counts.get("reason")
        self._spending.looks = counts.get("looks", 0)
        self._spending.left = counts.get("left", ALPHA)


def planned_stop(threshold: Threshold, scored: Scored, level: float = 0.95) -> str:
    """What to expect of a threshold with `lower_bound`.

    Args:
        threshold: on an AUROC, its limit in (0, 1).
        scored: how many texts are scored, at least 1 of each set.
        level: confidence of the two-sided interval that is read, in (0, 1).
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
        return f"{planned}. Even at {best} it holds {limit:g}, so the threshold never acts: score more texts."
    return f"{planned}, and the threshold acts from about {shown(at)} on, not as soon as the value is {side} {limit:g}."
