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
    """What the trainer's measures and module log in validation, as far as they say."""
    own: list[str] = getattr(trainer.lightning_module, "metric_names", lambda: ["train/loss", "val/loss"])()
    known = known_of(measures(trainer))
    return replace(known, metrics=known.metrics | set(own))


def check_names(names: Iterable[str], trainer: pl.Trainer, who: str) -> None:
    """Reject metrics that nothing logs; where callbacks or a module of the user's may log any, only absent ones.

    Args:
        names: of the metrics.
        trainer: its callbacks say what they log.
        who: the callback that reads them, for the message.

    Raises:
        ConfigError: a name is unknown, or the module's scores lack what it is measured from, which shows in the first
            validation.
    """
    silent = [c for c in callbacks_of(trainer) if not isinstance(c, Measure)]
    others = [*silent, *([trainer.lightning_module] if trainer.lightning_module else [])]
    foreign = any(type(other).__module__.partition(".")[0] not in ("lightning", "lit_mem") for other in others)
    known, names = known_in(trainer), list(names)
    known.check(names, who, complete=not foreign)
    if foreign and audit_of(trainer).own is not None:  # a module that knows nothing of our measures' names
        ours = {name.partition("/")[0] for measure in measures(trainer) for name in measure.names()} - {"val", "test"}
        known.check([name for name in names if name.partition("/")[0] in ours], who)


def check_limits(limits: Limits, trainer: pl.Trainer, who: str) -> None:
    """Reject a threshold, set by `who`, on a metric that nothing logs, or that cannot be measured."""
    check_names(limits.names(), trainer, who)


def passed(limits: Limits, trainer: pl.Trainer, who: str) -> list[tuple[Threshold, str, float]]:
    """The thresholds passed in the validation that just ended, with the name read and its value.

    Raises:
        ConfigError: nothing logs a metric of this name.
    """
    return limits.passed(latest_metrics(trainer), known_in(trainer), who)


def read(name: str, metrics: Mapping[str, float], who: str) -> float:
    """A metric of the validation that just ended.

    Raises:
        ConfigError: it was not logged; the message lists what was.
    """
    if name not in metrics:
        raise ConfigError(f"{who}: {name!r} was not logged; logged are {', '.join(sorted(metrics))}")
    return metrics[name]
