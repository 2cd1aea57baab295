"""What a run measured, validation by validation: from its record, and from its `metrics.csv`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lit_mem.errors import DataError
from lit_mem.files import record

_OF_A_VALIDATION: Final = ("val/", "test/", "mia/", "memorization/", "extraction/", "canary/", "slice/", "user/")
_CARRIED: Final = ("train/", "privacy/")
"""Logged between validations; the next one shows their last values."""

METRICS: Final = "metrics.csv"
"""What CSVLogger writes into a run's folder."""

_MOST: Final = 2**53


@dataclass
class Validation:
    """The metrics of one validation.

    Attributes:
        epoch: counted from 1; 0 is before training.
        step: training steps by then, less one, as Lightning logs it.
        metrics: by logged name; NaN where the run logged NaN. What is absent was not measured this time.
    """

    epoch: int
    step: int
    metrics: dict[str, float]

    def get(self, name: str) -> float | None:
        """A metric; None where it was not measured, or is NaN."""
        value = self.metrics.get(name)
        return None if value is None or math.isnan(value) else value


@dataclass
class History:
    """All validations of a run.

    Attributes:
        validations: in the order of training; may be empty.
        names: of every metric that was ever logged.
        notes: on problems of the files.
        whole: whether it has all of the run; False where a resumed run's first part is missing.
        has_losses: whether a training loss was ever logged.
        audit: whether nothing was trained: a validation or a test alone.
        stages: of the lines of the record, in their order; empty without one.
        stops: the thresholds that were in force in the last line of the record; empty without one.
        absent: metrics that could not be measured in this run, with the reason, by that line.
    """

    validations: list[Validation] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    whole: bool = True
    has_losses: bool = False
    audit: bool = False
    stages: list[str] = field(default_factory=list)
    stops: Sequence[record.Stop] = field(default_factory=list)
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> list[Validation]:
        """Those of the trained model: all except the one before training, if there are others."""
        return [v for v in self.validations if v.epoch > 0] or self.validations

    @property
    def start(self) -> Validation | None:
        """The one before training; None in an audit."""
        return None if self.audit else next((v for v in self.validations if v.epoch == 0), None)

    @property
    def last(self) -> Validation | None:
        """The newest."""
        return self.validations[-1] if self.validations else None


def is_run(folder: Path) -> bool:
    """Whether a folder has a record, or at least a `metrics.csv`."""
    return any((folder / name).is_file() for name in (record.FILE, METRICS))


def history_of(folder: Path) -> History:
    """What the run in a folder measured.

    Metrics of validations are those of the record, in double precision. From `metrics.csv`, which has them in float32,
    come the loss of training and the privacy spent where they were logged last, and validations that the record lacks:
    those of earlier versions, and one that a kill kept from the record.

    Raises:
        DataError: a file is damaged.
    """
    history = read_history(folder / METRICS) if (folder / METRICS).is_file() else History()
    lines, notes = record.read(folder / record.FILE)
    logged = {(each.epoch, each.step): each.metrics for each in history.validations}
    found: dict[tuple[int, int], Validation] = {}
    same: dict[tuple[int, int], tuple[int, int]] = {}
    trained, later = any(line.stage == "fit" for line in lines), 0
    for line in lines:
        # Lightning logs `validate` and `test` as of the epoch that would come next.
        at = logged_at = line.epoch + (line.stage != "fit"), line.logged_step
        if trained and line.stage != "fit":  # possibly of other weights, such as the best checkpoint
            later += 1
            logged.pop(logged_at, None)
            history.names.update(line.metrics)
            continue
        if line.stage == "fit" and line.epoch:  # what is logged outside a validation counts the step just taken
            at = line.epoch, min(line.logged_step, max(0, line.step - 1))
        same[logged_at] = at
        metrics = found[at].metrics if at in found else logged.get(logged_at, {})
        carried = {name: value for name, value in metrics.items() if name.startswith(_CARRIED)}
        found[at] = Validation(*at, {**metrics, **line.metrics, **carried})
        history.names.update(line.metrics)
    order, place = list(found), 0
    for logged_at, metrics in logged.items():
        at = same.get(logged_at, logged_at)
        if at not in found:
            found[at] = Validation(*at, metrics)
            order.insert(place, at)
        place = order.index(at) + 1
    history.validations = [found[at] for at in order]
    history.stages = [line.stage for line in lines]
    history.stops = lines[-1].stop if lines else []
    history.absent = lines[-1].absent if lines else {}
    history.has_losses |= any(name.startswith("train/") for name in history.names)
    history.notes += notes
    if later:
        history.notes.append(
            f"{later} pass{'es' * (later > 1)} of validate or test after training began "
            f"{'are' if later > 1 else 'is'} not on this page; {record.FILE} has {'them' if later > 1 else 'it'}"
        )
    return history


def read_history(path: Path) -> History:
    """Read what `CSVLogger` wrote.

    A truncated row, as a kill leaves it, is skipped and noted.

    Raises:
        DataError: a cell is not a number, or the file is not CSV.
    """
    history, carried = History(), dict[str, float]()
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read()
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise DataError(f"{path}: is not a readable CSV file ({error})") from None
    if not lines:
        return history
    header = lines[0]
    cut = bool(text) and not text.endswith("\n")
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header) or (cut and number == len(lines)):
            history.notes.append(f"{path.name}: row {number} is truncated and was skipped")
            continue
        row = dict(zip(header, cells, strict=True))
        values = {
            name: _number(cell, f"{path}, row {number}, column {name}")
            for name, cell in row.items()
            if cell != "" and name not in ("epoch", "step")
        }
        history.names.update(values)
        where = [_number(row.get(name) or "nan", f"{path}, row {number}, column {name}") for name in ("epoch", "step")]
        if any(abs(number) > _MOST for number in where):
            raise DataError(
                f"{path}, row {number}: found epoch {where[0]} and step {where[1]}; expected at most {_MOST}"
            )
        epoch = 0 if math.isnan(where[0]) else int(where[0]) + 1
        step = 0 if math.isnan(where[1]) else int(where[1])
        carried |= {name: value for name, value in values.items() if name.startswith(_CARRIED)}
        if not any(name.startswith(_OF_A_VALIDATION) for name in values):
            continue
        before = history.last
        if before is not None and (before.epoch, before.step) == (epoch, step):
            before.metrics |= carried | values  # one validation, logged in two parts
        else:
            history.validations.append(Validation(epoch, step, carried | values))
        carried = {}
    history.has_losses = any(name.startswith("train/") for name in history.names)
    if history.last is not None:
        history.last.metrics |= {name: value for name, value in carried.items() if name.startswith("privacy/")}
    return history


def _number(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"{where}: found {cell[:40]!r}; expected a number") from None
