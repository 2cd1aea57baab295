"""The limits of a run, each with the option that set it: from its configuration, else from its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.judging import Rule
from lit_mem.audit.thresholds import Limits
from lit_mem.errors import ConfigError, DataError
from lit_mem.files.record import FILE, Stop
from lit_mem.report.files import callbacks_of
from lit_mem.report.history import History

_HOLDERS: Final = ("MemorizationEarlyStopping", "MemorizationCheckpoint")


def rules_of(config: Mapping[str, Any]) -> Iterator[Rule]:
    """The limits that a run's configuration sets.

    >>> [(rule.set_by, str(rule.limits)) for rule in rules_of({"memorization": {"stop": "mia/loss_auroc > 0.7"}})]
    [('memorization.stop', 'mia/loss_auroc > 0.7')]
    """
    for path, options in callbacks_of(config):
        kind = path.rpartition(".")[2]
        if kind in _HOLDERS and options.get("thresholds"):
            yield _rule(f"{kind}.thresholds", options["thresholds"], options)
    section = config.get("memorization")
    if isinstance(section, Mapping) and section.get("suite") != "none" and section.get("stop"):
        yield _rule("memorization.stop", section["stop"], section)


def _rule(option: str, thresholds: Any, options: Mapping[str, Any]) -> Rule:
    texts = [thresholds] if isinstance(thresholds, str) else list(thresholds)
    limits = Limits(texts, bool(options.get("lower_bound", False)))
    return Rule(option, limits, str(options.get("stop_when", "any")))


def run_rules(folder: Path, config: Mapping[str, Any], history: History) -> list[Rule]:
    """The limits of a run; where its configuration sets none, as for a run started from Python, those of its record.

    Args:
        folder: of the run.
        config: its configuration.
        history: of the run.

    Raises:
        DataError: a threshold of the record cannot be parsed.
    """
    return list(rules_of(config)) or [_recorded(stop, folder / FILE) for stop in history.stops]


def _recorded(stop: Stop, path: Path) -> Rule:
    try:
        return Rule.of_record(stop)
    except ConfigError as error:
        raise DataError(f"{path}: stop: {error}") from None
