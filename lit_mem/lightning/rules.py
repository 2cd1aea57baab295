"""Thresholds on the metrics of a trainer's last validation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import lightning.pytorch as pl

from lit_mem.audit.known import Known
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Measure
from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.errors import ConfigError
from lit_mem.lightning.auditing import audit_of, latest_metrics, measures
from lit_mem.lightning.of_trainer import callbacks_of

__all__ = ["Limits", "Threshold", "check_limits", "check_names", "known_in", "passed", "read"]


def known_in(trainer: pl.Trainer) -> Known:
    """Metrics that the trainer's measures and module log in validation, as far as they declare them."""
    own: list[str] = getattr(trainer.lightning_module, "metric_names", lambda: ["train/loss", "val/loss"])()
    known = known_of(measures(trainer))
    return replace(known, metrics=known.metrics | set(own))


def check_names(names: Iterable[str], trainer: pl.Trainer, who: str) -> None:
    """Reject metrics that are never logged; with third-party callbacks or modules, only absent ones.

    Args:
        names: names of the metrics.
        trainer: its callbacks declare what they log.
        who: the callback that reads them, for the message.

    Raises:
        ConfigError: a name is unknown, or its input is missing from the module's scores, which shows in the first
            validation.
    """
    silent = [c for c in callbacks_of(trainer) if not isinstance(c, Measure)]
    others = [*silent, *([trainer.lightning_module] if trainer.lightning_module else [])]
    foreign = any(type(other).__module__.partition(".")[0] not in ("lightning", "lit_mem") for other in others)
    known, names = known_in(trainer), list(names)
    known.check(names, who, complete=not foreign)
    if foreign and audit_of(trainer).own is not None:  # a custom module does not log names of our measures
        ours = {name.partition("/")[0] for measure in measures(trainer) for name in measure.names()} - {"val", "test"}
        known.check([name for name in names if name.partition("/")[0] in ours], who)


def check_limits(limits: Limits, trainer: pl.Trainer, who: str) -> None:
    """Reject a threshold, set by `who`, on a metric that is never logged, or that cannot be measured."""
    check_names(limits.names(), trainer, who)


def passed(limits: Limits, trainer: pl.Trainer, who: str) -> list[tuple[Threshold, str, float]]:
    """The thresholds exceeded in the last validation, with the name read and its value.

    Raises:
        ConfigError: a metric of this name is never logged.
    """
    return limits.passed(latest_metrics(trainer), known_in(trainer), who)


def read(name: str, metrics: Mapping[str, float], who: str) -> float:
    """A metric of the last validation.

    Raises:
        ConfigError: it was not logged; the message lists those that were.
    """
    if name not in metrics:
        raise ConfigError(f"{who}: {name!r} was not logged; logged metrics: {', '.join(sorted(metrics))}")
    return metrics[name]
