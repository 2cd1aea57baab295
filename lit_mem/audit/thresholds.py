"""Limits on logged metrics, written the way they are read: `mia/reference_auroc > 0.6`."""

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
"""Thresholds by a name that stands for them, for those who have none; docs/guides/stopping.md says for whom."""

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
            raise ConfigError(
                f"threshold {text!r} is not of the form 'name > number' or 'name < number', and is not "
                f"{' or '.join(PRESETS)}"
            )
        return cls(found["name"], found["sign"] == ">", limit)

    def passed_by(self, value: float) -> bool:
        """Whether `value` lies beyond the limit; never for NaN, which is no evidence of anything."""
        return value > self.limit if self.above else value < self.limit

    @property
    def is_auroc(self) -> bool:
        """Whether the metric is an area under a ROC curve (and no end of its interval)."""
        return _AUROC.search(self.name) is not None

    @property
    def safe_end(self) -> str:
        """Which end of the metric's interval is nearer to the safe side: "low" or "high"."""
        return "low" if self.above else "high"

    def cautious_name(self) -> str:
        """The metric's end of the interval that is nearer to the safe side, for AUROCs."""
        return f"{self.name}_{self.safe_end}" if self.is_auroc else self.name

    def __str__(self) -> str:
        return f"{self.name} {'>' if self.above else '<'} {self.limit:g}"


def parsed(texts: Iterable[str]) -> list[Threshold]:
    """Thresholds from their texts, with presets replaced by what they stand for; each once.

    Raises:
        ConfigError: one is neither.

    >>> [str(one) for one in parsed(["standard"])]
    ['mia/strongest_auroc > 0.7', 'extraction/exact_rate > 0.05']
    """
    each = (one for text in texts for one in PRESETS.get(text.strip(), (text,)))
    return list(dict.fromkeys(map(Threshold.parse, each)))


def meaning(texts: Iterable[str]) -> str:
    """What the presets among thresholds stand for, in a line; "" where there are none.

    >>> meaning(["standard", "val/loss > 3"])
    'standard stands for mia/strongest_auroc > 0.7; extraction/exact_rate > 0.05'
    """
    presets = dict.fromkeys(text.strip() for text in texts if text.strip() in PRESETS)
    return ". ".join(f"{name} stands for {'; '.join(PRESETS[name])}" for name in presets)


Ends = Callable[[Threshold], tuple[float, float] | None]
"""The interval of a threshold's metric, at a level that the caller chooses; None where it has none."""


class Limits:
    """Thresholds that belong together.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6", or a preset.
        lower_bound: where a metric has an interval, read the end that is nearer to the safe side.

    Raises:
        ConfigError: there is none, or one is not of that form.

    Attributes:
        thresholds: each once.
        meaning: what the presets among them stand for, for a line in the log; "" where there are none.
    """

    def __init__(self, thresholds: list[str], lower_bound: bool = False) -> None:
        if not thresholds:
            raise ConfigError("thresholds is empty; expected such as 'mia/loss_auroc > 0.7', or standard")
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

    def passed(
        self, metrics: Mapping[str, float], known: Known, who: str, ends: Ends | None = None
    ) -> list[tuple[Threshold, str, float]]:
        """The thresholds that a pass is beyond, with what was read and its value.

        A metric that was not measured this time (extraction only every n validations, too few non-members)
        passes nothing.

        Args:
            metrics: of the pass, by name.
            known: what may be logged.
            who: sets the thresholds, for messages.
            ends: gives intervals, with `lower_bound`; None: those of 95 %, as they are logged.

        Raises:
            ConfigError: nothing logs a metric of this name, or it cannot be measured in this run.
        """
        known.check(self.names(), who, complete=False)
        beyond = []
        for threshold in self.thresholds:
            name = threshold.name
            if name not in metrics:
                if known.has(name):
                    continue
                raise ConfigError(f"{who}: {name!r} was not logged; logged are {', '.join(sorted(metrics))}")
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
