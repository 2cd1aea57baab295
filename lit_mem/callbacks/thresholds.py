"""Limits on logged figures, written the way they are read: `mia/reference_auroc > 0.6`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import lightning.pytorch as pl

from lit_mem.callbacks.base import Measure, callbacks_of, latest_figures, measures
from lit_mem.errors import ConfigError

_AUROC = re.compile(r"(_auroc|^canary/auroc(_.*)?(?<!_low)(?<!_high))$")
_PATTERN = re.compile(r"^\s*(?P<name>[^\s<>]+)\s*(?P<sign>[<>])\s*(?P<limit>\S+)\s*$")


@dataclass(frozen=True)
class Threshold:
    """A limit that a logged figure is not to pass.

    Attributes:
        name: as it is logged.
        above: whether values above the limit (True) or below it (False) pass it.
        limit: in the figure's own unit.
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
        """The figure's end of the interval that is nearer to the safe side, for AUROCs."""
        if not self.is_auroc:
            return self.name
        return self.name + ("_low" if self.above else "_high")

    def __str__(self) -> str:
        return f"{self.name} {'>' if self.above else '<'} {self.limit:g}"


def logged_names(trainer: pl.Trainer) -> set[str]:
    """Every name that the trainer's measuring callbacks and module are known to log in validation."""
    own: list[str] = getattr(trainer.lightning_module, "metric_names", lambda: ["train/loss", "val/loss"])()
    return set(own).union(*(measure.metric_names() for measure in measures(trainer)))


def is_logged(name: str, trainer: pl.Trainer) -> bool:
    """Whether a figure of this name may be logged; some names are known only once the data is (`slice/…`)."""
    return name in logged_names(trainer) or any(name.startswith(m.metric_prefixes) for m in measures(trainer))


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

    def check_names(self, trainer: pl.Trainer, who: str) -> None:
        """Reject a threshold, set by `who`, on a metric that nothing logs, or that cannot be measured."""
        check_names([self._reads(threshold) for threshold in self.thresholds], trainer, who)

    def passed(self, trainer: pl.Trainer, who: str) -> list[tuple[Threshold, str, float]]:
        """The thresholds passed in the validation that just ended, with the name read and its value.

        A figure that was not measured this time (extraction only every n validations, too few non-members)
        passes nothing.

        Raises:
            ConfigError: nothing logs a figure of this name.
        """
        refuse_absent([self._reads(threshold) for threshold in self.thresholds], trainer, who)
        beyond, figures = [], latest_figures(trainer)
        for threshold in self.thresholds:
            name = self._reads(threshold)
            if name not in figures and is_logged(name, trainer):
                continue
            value = read(name, figures, who)
            if threshold.passed_by(value):
                beyond.append((threshold, name, value))
        return beyond


def check_names(names: Iterable[str], trainer: pl.Trainer, who: str) -> None:
    """Refuse a threshold on a figure that nothing logs.

    Args:
        names: what the thresholds read.
        trainer: its callbacks say what they log.
        who: the callback that sets the threshold, for the message.

    Raises:
        ConfigError: a name is unknown, and all callbacks are ones that say what they log; or the module's scores lack
            what it is measured from, which shows in the first validation.
    """
    names = list(names)
    refuse_absent(names, trainer, who)
    known = logged_names(trainer)
    silent = [c for c in callbacks_of(trainer) if not isinstance(c, Measure)]
    others = [*silent, *([trainer.lightning_module] if trainer.lightning_module else [])]
    foreign = any(type(other).__module__.partition(".")[0] not in ("lightning", "lit_mem") for other in others)
    for name in names:
        if not is_logged(name, trainer) and not foreign:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"{who}: no callback logs {name!r}; {hint}{_listed(name, known)}")


def refuse_absent(names: Iterable[str], trainer: pl.Trainer, who: str) -> None:
    """Reject metrics that a measure has left out of this run.

    Raises:
        ConfigError: one of `names` is; the message says what is lacking.
    """
    for name in names:
        for measure in measures(trainer):
            if name in measure.absent:
                logged = _listed(name, logged_names(trainer))
                raise ConfigError(f"{who}: {name!r} is not measured, as {measure.absent[name]}. {logged}")


def _listed(name: str, known: set[str]) -> str:
    """What is logged in the same room as a name, or in all; at most twenty names."""
    room = name.partition("/")[0] + "/"
    names = sorted(other for other in known if other.startswith(room)) or sorted(known)
    # The likest first, where there are too many to show.
    shown = sorted(difflib.get_close_matches(name, names, n=20, cutoff=0.0)) if len(names) > 20 else names
    more = f" and {len(names) - len(shown)} more (see docs/measures.md)" if len(shown) < len(names) else ""
    return f"Logged are: {', '.join(shown)}{more}"


def read(name: str, metrics: Mapping[str, float], who: str) -> float:
    """A figure of the validation that just ended.

    Raises:
        ConfigError: it was not logged; the message lists what was.
    """
    if name not in metrics:
        raise ConfigError(f"{who}: {name!r} was not logged; logged are {', '.join(sorted(metrics))}")
    return metrics[name]
