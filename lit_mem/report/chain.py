"""Which command wrote a log folder, and which run it was resumed from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.files.origin import FILE
from lit_mem.report.files import read_config, read_json
from lit_mem.report.history import History, history_of, is_run

_MOST_LINKS: Final = 50


@dataclass(frozen=True)
class Origin:
    """Which command wrote a log folder, and from which checkpoint.

    Attributes:
        command: "fit", "validate", "test" or "audit"; None where that is not recorded.
        checkpoint: paths at which the checkpoint that it started from may lie; empty without one.
        step: training steps done by that checkpoint; None where that is not known.
    """

    command: str | None = None
    checkpoint: tuple[Path, ...] = ()
    step: int | None = None


@dataclass
class Chain:
    """A run and those that it was resumed from.

    Attributes:
        folders: the newest first, each with the training steps up to which its record counts; None: all of it.
        whole: whether the oldest was not itself resumed.
        missing: the checkpoint whose run could not be found.
    """

    folders: list[tuple[Path, int | None]] = field(default_factory=list)
    whole: bool = True
    missing: Path | None = None


def read_origin(folder: Path, config: Mapping[str, Any]) -> Origin:
    """The origin of a folder, by its `run.json`; without one, by the checkpoint that its configuration names.

    Raises:
        DataError: the file is not as `write_origin` has it.
    """
    found = read_json(folder / FILE)
    if found is None:
        path = config.get("ckpt_path")
        return Origin(checkpoint=(Path(path),) if isinstance(path, str) and path.endswith(".ckpt") else ())
    start = found.get("from") if isinstance(found, dict) else 0
    if start is None:
        return Origin(found.get("command"))
    keys = {"checkpoint": str, "relative": str, "global_step": int}
    if not isinstance(start, dict) or not all(isinstance(start.get(key), kind) for key, kind in keys.items()):
        raise DataError(
            f"{folder / FILE}: from is {start!r:.80}; expected checkpoint, relative and global_step, or null"
        )
    places = (folder / start["relative"], Path(start["checkpoint"]))
    return Origin(found.get("command"), places, start["global_step"])


def chain_of(folder: Path) -> Chain:
    """Follow a run to those that it was resumed from, at most 50; a repeated folder ends the chain."""
    found, seen, step = Chain(), set[Path](), None
    here: Path | None = folder
    while here is not None:
        seen.add(here.resolve())
        found.folders.append((here, step))
        origin = read_origin(here, read_config(here / "config.yaml")[1])
        if not origin.checkpoint:
            return found
        parent = next((one for path in origin.checkpoint if (one := _run_of(path)) is not None), None)
        if parent is None or parent.resolve() in seen or len(found.folders) > _MOST_LINKS:
            break
        # An earlier run counts up to the step from which a later one was resumed.
        step = _least(step, origin.step)
        if origin.step is None:
            step = _least(step, _first_step(here))
        here = parent
    found.whole, found.missing = False, origin.checkpoint[-1]
    return found


def _least(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _run_of(checkpoint: Path) -> Path | None:
    """The log folder that a checkpoint belongs to: the nearest above it with a record."""
    for folder in list(checkpoint.parents)[:3]:
        if is_run(folder):
            return folder
    return None


def _first_step(folder: Path) -> int | None:
    validations = history_of(folder).validations
    return validations[0].step if validations else None


def read_run(folder: Path, config: Mapping[str, Any]) -> tuple[History, Origin]:
    """The record of a folder, and of the runs that it was resumed from; an audit has none.

    Args:
        folder: holds `memorization.jsonl`, or `metrics.csv`, or both.
        config: its configuration.

    Raises:
        DataError: a file of the folder, or of an earlier run, is damaged.
    """
    origin = read_origin(folder, config)
    own = history_of(folder)
    if own.stages and not own.has_losses and "fit" not in own.stages:
        origin = replace(origin, command=origin.command or own.stages[-1])
    # Earlier versions record no command: `validate` and `test` log one validation, no loss, and an epoch.
    alone = not own.has_losses and [v.epoch for v in own.validations] == [1] and not (folder / "checkpoints").exists()
    alone = alone and not own.stages
    if origin.command in ("validate", "test", "audit") or (origin.command is None and alone):
        for validation in own.validations:
            validation.epoch = 0
        own.audit = True
        return own, origin
    return chained_history(chain_of(folder)), origin


def chained_history(chain: Chain) -> History:
    """The record of a chain of runs as one: of two validations at one step, that of the later run.

    Raises:
        DataError: a file of the chain is damaged.
    """
    by_step: dict[tuple[bool, int], Any] = {}
    whole = History(whole=chain.whole)
    for folder, upto in reversed(chain.folders):
        history = history_of(folder)
        own = [v for v in history.validations if v.epoch == 0 or v.step < (math.inf if upto is None else upto)]
        by_step |= {(v.epoch > 0, v.step): v for v in own}
        whole.names |= history.names if folder == chain.folders[0][0] else {n for v in own for n in v.metrics}
        name = f"{folder.name}: " if len(chain.folders) > 1 else ""
        whole.notes += [f"{name}{note}" for note in history.notes]
        whole.has_losses |= history.has_losses
        whole.stops, whole.absent = history.stops, history.absent
    whole.validations = [by_step[key] for key in sorted(by_step)]
    if len(chain.folders) > 1:
        names = ", ".join(str(folder.name) for folder, _ in reversed(chain.folders))
        whole.notes.append(f"this run was resumed; its record is that of {names}, in this order")
    if not chain.whole and whole.validations:
        first = whole.validations[0].epoch
        whole.notes.append(
            f"this run was resumed from {chain.missing}, whose record was not found: the report starts at epoch {first}"
        )
    return whole
