"""Limits on logged metrics, written the way they are read: `mia/reference_auroc > 0.6`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lit_mem.audit.known import Known
from lit_mem.errors import ConfigError

_AUROC = re.compile(r"(_auroc|^canary/auroc(_.*)?(?<!_low)(?<!_high))$")
_PATTERN = re.compile(r"^\s*(?P<name>[^\s<>]+)\s*(?P<sign>[<>])\s*(?P<limit>\S+)\s*$")


@dataclass(frozen=True)
class Threshold:
    """A limit that a logged metric is not to pass.

    Attributes:
        name: as it is logged.
        above: whether values above the limit (True) or below it (False) pass it.
        limit: in the metric's own unit.
    """

    name: str
    above: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read "name > limit" or "name < limit".

        Raises:
            ConfigError: it is not of that form.

        >>> Threshold.parse("mia/reference_auroc > 0.6")
        Threshold(name='mia/reference_auroc', above=True, limit=0.6)
        """
        found = _PATTERN.match(text)
        try:
            limit = float(found["limit"]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or not math.isfinite(limit):
            raise ConfigError(f"threshold {text!r} is not of the form 'name > number' or 'name < number'")
        return cls(found["name"], found["sign"] == ">", limit)

    def passed_by(self, value: float) -> bool:
        """Whether `value` lies beyond the limit; never for NaN, which is no evidence of anything."""
        return value > self.limit if self.above else value < self.limit

    @property
    def is_auroc(self) -> bool:
        """Whether the metric is an area under a ROC curve (and no end of its interval)."""
        return _AUROC.search(self.name) is not None

    def cautious_name(self) -> str:
        """The metric's end of the interval that is nearer to the safe side, for AUROCs."""
        if not self.is_auroc:
            return self.name
        return self.name + ("_low" if self.above else "_high")

    def __str__(self) -> str:
        return f"{self.name} {'>' if self.above else '<'} {self.limit:g}"


class Limits:
    """Thresholds that belong together.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6".
        lower_bound: for AUROCs read the end of the 95 % interval that is nearer to the safe side.

    Raises:
        ConfigError: there is none, or one is not of that form.
    """

    def __init__(self, thresholds: list[str], lower_bound: bool = False) -> None:
        if not thresholds:
            raise ConfigError("thresholds is empty; expected such as 'mia/loss_auroc > 0.7'")
        self.thresholds = [Threshold.parse(text) for text in thresholds]
        self.lower_bound = lower_bound

    def __len__(self) -> int:
        return len(self.thresholds)

    def __iter__(self) -> Iterator[Threshold]:
        return iter(self.thresholds)

    def __str__(self) -> str:
        return "; ".join(map(str, self.thresholds))

    def _reads(self, threshold: Threshold) -> str:
        return threshold.cautious_name() if self.lower_bound else threshold.name

    def caveat(self, looks: int) -> str:
        """What many looks at lower bounds do to their 95 %, for the end of a line; empty where there is one or none.

        Args:
            looks: how many validations were judged.
        """
        n = sum(threshold.cautious_name() != threshold.name for threshold in self.thresholds)
        if not self.lower_bound or n * looks < 2:
            return ""
        return (
            f" Each interval is at 95 % for one look; with {n} threshold{'s' * (n > 1)} on AUROCs at {looks} "
            f"validation{'s' * (looks > 1)}, noise alone passes one more often."
        )

    def names(self) -> list[str]:
        """Of the metrics that they read."""
        return [self._reads(threshold) for threshold in self.thresholds]

    def passed(self, metrics: Mapping[str, float], known: Known, who: str) -> list[tuple[Threshold, str, float]]:
        """The thresholds that a pass is beyond, with the name read and its value.

        A metric that was not measured this time (extraction only every n validations, too few non-members)
        passes nothing.

        Args:
            metrics: of the pass, by name.
            known: what may be logged.
            who: sets the thresholds, for messages.

        Raises:
            ConfigError: nothing logs a metric of this name, or it cannot be measured in this run.
        """
        known.check(self.names(), who, complete=False)
        beyond = []
        for threshold in self.thresholds:
            name = self._reads(threshold)
            if name not in metrics:
                if known.has(name):
                    continue
                raise ConfigError(f"{who}: {name!r} was not logged; logged are {', '.join(sorted(metrics))}")
            if threshold.passed_by(metrics[name]):
                beyond.append((threshold, name, metrics[name]))
        return beyond
