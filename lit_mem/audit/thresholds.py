"""Limits on logged metrics, written like `mia/reference_auroc > 0.6`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lit_mem.audit.known import Known
from lit_mem.errors import ConfigError

PRESETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "strict": ("mia/strongest_auroc > 0.6", "extraction/exact_rate > 0.01"),
        "standard": ("mia/strongest_auroc > 0.7", "extraction/exact_rate > 0.05"),
    }
)
"""Named presets of thresholds; docs/guides/stopping.md describes when to use each."""

_AUROC = re.compile(r"(_auroc|^canary/auroc(_.*)?(?<!_low)(?<!_high))$")
_PATTERN = re.compile(r"^\s*(?P<name>[^\s<>]+)\s*(?P<sign>[<>])\s*(?P<limit>\S+)\s*$")


@dataclass(frozen=True)
class Threshold:
    """A limit on a logged metric.

    Attributes:
        name: logged name of the metric.
        above: whether values above the limit (True) or below it (False) exceed it.
        limit: in the metric's own unit.
    """

    name: str
    above: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read "name > limit" or "name < limit".

        Raises:
            ConfigError: the text does not have that form.

        >>> Threshold.parse("mia/reference_auroc > 0.6")
        Threshold(name='mia/reference_auroc', above=True, limit=0.6)
        """
        found = _PATTERN.match(text)
        try:
            limit = float(found["limit"]) if found else math.nan
        except ValueError:
            limit = math.nan
        if found is None or not math.isfinite(limit):
            raise ConfigError(
                f"threshold {text!r} is not of the form 'name > number' or 'name < number', and is not "
                f"{' or '.join(PRESETS)}"
            )
        return cls(found["name"], found["sign"] == ">", limit)

    def passed_by(self, value: float) -> bool:
        """Whether `value` lies beyond the limit; always False for NaN."""
        return value > self.limit if self.above else value < self.limit

    @property
    def is_auroc(self) -> bool:
        """Whether the metric is an AUROC (and not an end of its interval)."""
        return _AUROC.search(self.name) is not None

    @property
    def safe_end(self) -> str:
        """Which end of the metric's interval is nearer to the safe side: "low" or "high"."""
        return "low" if self.above else "high"

    def cautious_name(self) -> str:
        """Name of the safe end of the metric's interval for AUROCs; otherwise the metric's name."""
        return f"{self.name}_{self.safe_end}" if self.is_auroc else self.name

    def __str__(self) -> str:
        return f"{self.name} {'>' if self.above else '<'} {self.limit:g}"


def parsed(texts: Iterable[str]) -> list[Threshold]:
    """Parse thresholds, with presets expanded, without duplicates.

    Raises:
        ConfigError: a text is neither a threshold nor a preset.

    >>> [str(one) for one in parsed(["standard"])]
    ['mia/strongest_auroc > 0.7', 'extraction/exact_rate > 0.05']
    """
    each = (one for text in texts for one in PRESETS.get(text.strip(), (text,)))
    return list(dict.fromkeys(map(Threshold.parse, each)))


def meaning(texts: Iterable[str]) -> str:
    """The expansion of the presets among thresholds, in a line; "" without presets.

    >>> meaning(["standard", "val/loss > 3"])
    'standard stands for mia/strongest_auroc > 0.7; extraction/exact_rate > 0.05'
    """
    presets = dict.fromkeys(text.strip() for text in texts if text.strip() in PRESETS)
    return ". ".join(f"{name} stands for {'; '.join(PRESETS[name])}" for name in presets)


Ends = Callable[[Threshold], tuple[float, float] | None]
"""The interval of a threshold's metric, at a level that the caller chooses; None without one."""


class Limits:
    """A set of thresholds.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6", or a preset.
        lower_bound: if a metric has an interval, read its safe end.

    Raises:
        ConfigError: the list is empty, or a threshold is malformed.

    Attributes:
        thresholds: the thresholds, without duplicates.
        meaning: expansion of the presets among them, for the log; "" without presets.
    """

    def __init__(self, thresholds: list[str], lower_bound: bool = False) -> None:
        if not thresholds:
            raise ConfigError("thresholds is empty; expected thresholds such as 'mia/loss_auroc > 0.7', or standard")
        self.thresholds = parsed(thresholds)
        self.meaning = meaning(thresholds)
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
        """A note on multiple looks at 95 % bounds, to append to a line; empty for a single look.

        Args:
            looks: number of validations judged.
        """
        n = sum(threshold.cautious_name() != threshold.name for threshold in self.thresholds)
        if not self.lower_bound or n * looks < 2:
            return ""
        return (
            f" Each interval is at 95 % for one look; with {n} threshold{'s' * (n > 1)} on AUROCs at {looks} "
            f"validation{'s' * (looks > 1)}, noise alone exceeds one more often."
        )

    def names(self) -> list[str]:
        """Names of the metrics that the thresholds read."""
        return [self._reads(threshold) for threshold in self.thresholds]

    def passed(
        self, metrics: Mapping[str, float], known: Known, who: str, ends: Ends | None = None
    ) -> list[tuple[Threshold, str, float]]:
        """The thresholds that a pass exceeds, with the name that was read and its value.

        A metric that was not measured this time (extraction only every n validations, too few non-members) exceeds
        nothing.

        Args:
            metrics: metrics of the pass, by name.
            known: metrics that may be logged.
            who: what sets the thresholds, for messages.
            ends: gives intervals, with `lower_bound`; None: the logged 95 % ends.

        Raises:
            ConfigError: a metric of this name is never logged, or cannot be measured in this run.
        """
        known.check(self.names(), who, complete=False)
        beyond = []
        for threshold in self.thresholds:
            name = threshold.name
            if name not in metrics:
                if known.has(name):
                    continue
                raise ConfigError(f"{who}: {name!r} was not logged; logged metrics: {', '.join(sorted(metrics))}")
            value = metrics[name]
            if self.lower_bound:
                end = f"{name}_{threshold.safe_end}"
                interval = None if ends is None else ends(threshold)
                if interval is not None:
                    name, value = end, interval[0 if threshold.above else 1]
                elif end in metrics:
                    name, value = end, metrics[end]
            if threshold.passed_by(value):
                beyond.append((threshold, name, value))
        return beyond
