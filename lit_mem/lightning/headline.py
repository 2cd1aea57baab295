"""Select the metrics sent to loggers: the main ones, and those that the user names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl

from lit_mem.audit.headline import is_main
from lit_mem.audit.measure import Measure
from lit_mem.lightning.limited import rules_in
from lit_mem.lightning.of_trainer import callbacks_of


def log_metrics(module: pl.LightningModule, metrics: Mapping[str, float]) -> None:
    """Log metrics of a pass, the same on every rank: all of them for callbacks, a selection for loggers.

    Args:
        module: the module to log from, in a hook of the validation or test loop.
        metrics: metrics by logged name.
    """
    sent = to_loggers(module.trainer, metrics)
    # Every rank has computed the same values, so the mean over ranks changes nothing.
    module.log_dict(sent, sync_dist=True)
    rest = {name: value for name, value in metrics.items() if name not in sent}
    module.log_dict(rest, sync_dist=True, logger=False)


def to_loggers(trainer: pl.Trainer, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are sent to the trainer's loggers.

    All, unless a callback with measures has `log: main`. Then those of `MAIN`, those that a threshold, a checkpoint or
    early stopping reads, with their intervals, and those of third-party measures. Without a logger all, as
    `Trainer.validate` returns what is sent to loggers.
    """
    if not trainer.loggers or not any(_sends_main(one) for one in callbacks_of(trainer)):
        return dict(metrics)
    named = frozenset(_named(trainer))
    own = tuple(prefix for measure in _measures_from_elsewhere(trainer) for prefix in measure.name_prefixes)
    return {name: value for name, value in metrics.items() if name in named or name.startswith(own) or is_main(name)}


def _sends_main(callback: Any) -> bool:
    return getattr(callback, "sent", "all") == "main" and bool(getattr(callback, "measures", ()))


def _named(trainer: pl.Trainer) -> Iterator[str]:
    for rule in rules_in(trainer):
        for threshold in rule.limits:
            yield from (threshold.name, f"{threshold.name}_low", f"{threshold.name}_high")
    for one in (*callbacks_of(trainer), *trainer.lr_scheduler_configs):
        if isinstance(monitor := getattr(one, "monitor", None), str):
            yield monitor
    for measure in _measures_from_elsewhere(trainer):
        yield from measure.names()


def _measures_from_elsewhere(trainer: pl.Trainer) -> Iterator[Measure]:
    for callback in callbacks_of(trainer):
        for one in (callback, *getattr(callback, "measures", ())):
            if isinstance(one, Measure) and type(one).__module__.partition(".")[0] != "lit_mem":
                yield one
