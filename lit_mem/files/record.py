"""The record of a run, `memorization.jsonl`: one line of JSON per measuring pass (`record.schema.json`).

A line is appended atomically and is on the disk when `append` returns. A process killed while writing can leave one
line without its newline: `read` skips it, and the next `append` replaces it.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from lit_mem.errors import DataError
from lit_mem.files import atomic, modes
from lit_mem.files.untrusted import LARGEST, parse_json, read_text

FILE: Final = "memorization.jsonl"
"""Its name in a run's folder."""
IN_OUTPUT_DIR: Final = "memorization"
"""The run's folder in the `output_dir` of one of Hugging Face's trainers."""
VERSION: Final = 1
"""Version of the format."""

_STAGES: Final = ("fit", "validate", "test")
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How non-finite metrics are written, since JSON has no such numbers."""
_MOST: Final = 2**53
_BLOCK: Final = 2**16


@dataclass(frozen=True)
class Stop:
    """Thresholds that are evaluated together.

    Attributes:
        set_by: the option that set them, such as "memorization.stop"; in earlier records the class of the callback.
        thresholds: such as "mia/reference_auroc > 0.85".
        stop_when: "any" or "all" of them.
        lower_bound: whether an AUROC is compared by the bound of its interval on the safe side.
    """

    set_by: str
    thresholds: Sequence[str]
    stop_when: str
    lower_bound: bool


@dataclass(frozen=True)
class Line:
    """What is written for one pass.

    Attributes:
        stage: "fit" (a validation during or before training), "validate" or "test".
        epoch: of training, from 1; 0 before it. In `validate` and `test`, the epochs trained by then.
        step: training steps so far.
        logged_step: the step at which loggers have these metrics.
        complete: whether every measure was computed; False where generation was stopped.
        members: number of members scored; None if no measure counts them.
        heldout: number of held-out texts scored (in `test`, test texts); None likewise.
        metrics: by logged name. Absent names were not measured in this pass.
        absent: metrics that cannot be measured in this run, each with the reason.
        stop: the thresholds in force.
    """

    stage: Literal["fit", "validate", "test"]
    epoch: int
    step: int
    logged_step: int
    complete: bool
    members: int | None
    heldout: int | None
    metrics: Mapping[str, float]
    absent: Mapping[str, str] = field(default_factory=dict)
    stop: Sequence[Stop] = field(default_factory=list)


_STOP: Final = [each.name for each in fields(Stop)]


def append(path: Path, line: Line) -> None:
    """Append a line to a file, creating it if needed.

    Raises:
        OSError: it cannot be written; the file is unchanged.
    """
    data = (json.dumps(plain(line), allow_nan=False) + "\n").encode()
    with atomic.naming(path):
        modes.make_file(path)
        with path.open("r+b", buffering=0) as file:
            whole = _whole(file)
            file.truncate(whole)
            file.seek(whole)
            try:
                rest = memoryview(data)
                while rest:  # one write, unless the disk accepts only a part
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(whole)
                raise
    if not whole:
        atomic.sync_names(path.parent)


def plain(line: Line) -> dict[str, Any]:
    """A line as JSON values; the inverse of `parsed`."""
    return {"version": VERSION} | asdict(line) | {"metrics": {k: _written(v) for k, v in line.metrics.items()}}


def _whole(file: BinaryIO) -> int:
    """Length in bytes of the complete lines of a file."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _written(value: float) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def read(path: Path) -> tuple[list[Line], list[str]]:
    """The lines of a record, and notes on defects of the file; both empty if it does not exist.

    Where training went back to an earlier step (a run started again in the same folder, or resumed from an older
    checkpoint), the earlier lines from that step on are dropped.

    Raises:
        DataError: a complete line does not match the schema; the message names it.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return [], []
    whole, _, torn = read_text(path, DataError, LARGEST, errors="replace").rpartition("\n")
    texts = whole.split("\n") if whole else []
    notes = [f"{path.name}: line {len(texts) + 1} is truncated and was skipped"] if torn else []
    found: list[Line] = []
    latest = -1
    for number, text in enumerate(texts, start=1):
        where = f"{path}, line {number}"
        line = parsed(parse_json(text, where), where)
        if line.stage == "fit":
            if line.step <= latest:
                found = [one for one in found if one.step < line.step]
            latest = line.step
        found.append(line)
    return found, notes


def parsed(found: Any, where: str) -> Line:
    """A line from JSON values; the inverse of `plain`.

    Args:
        found: the values, from an untrusted file.
        where: the file and line, for messages.

    Raises:
        DataError: they do not match the schema.
    """
    version = found.get("version") if isinstance(found, dict) else None
    if version != VERSION or isinstance(version, bool):
        raise DataError(f"{where}: version is {version!r:.40}; expected {VERSION}, a line written by lit_mem")
    count = "a whole number of 0 or more"
    return Line(
        stage=_valid(found, "stage", where, lambda v: v in _STAGES, "fit, validate or test"),
        epoch=_valid(found, "epoch", where, _is_count, count),
        step=_valid(found, "step", where, _is_count, count),
        logged_step=_valid(found, "logged_step", where, _is_count, count),
        complete=_valid(found, "complete", where, lambda v: isinstance(v, bool), "true or false"),
        members=_valid(found, "members", where, lambda v: v is None or _is_count(v), f"{count}, or null"),
        heldout=_valid(found, "heldout", where, lambda v: v is None or _is_count(v), f"{count}, or null"),
        metrics=_metrics(_valid(found, "metrics", where, lambda v: isinstance(v, dict), "numbers by name"), where),
        absent=_valid(found, "absent", where, _are_texts, "texts by name"),
        stop=[Stop(**one) for one in _valid(found, "stop", where, _are_stops, f"a list of {', '.join(_STOP)}")],
    )


def _valid(found: Mapping[str, Any], name: str, where: str, fits: Any, expected: str) -> Any:
    value = found.get(name)
    if name not in found or not fits(value):
        raise DataError(f"{where}: {name} is {value!r:.40}; expected {expected}")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _are_stops(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and sorted(one) == sorted(_STOP)
        and isinstance(one["set_by"], str)
        and isinstance(one["thresholds"], list)
        and all(isinstance(text, str) for text in one["thresholds"])
        and one["stop_when"] in ("any", "all")
        and isinstance(one["lower_bound"], bool)
        for one in value
    )


def _metrics(found: Mapping[str, Any], where: str) -> dict[str, float]:
    metrics = {}
    for name, value in found.items():
        if isinstance(value, str) and value in _NOT_FINITE:
            value = _NOT_FINITE[value]
        elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise DataError(f"{where}: metric {name!r:.60} is {value!r:.40}; expected a number, or NaN in quotes")
        metrics[name] = float(value)
    return metrics
