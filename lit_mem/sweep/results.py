"""One table of all trials: one row per trial and validation, with all metrics by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_mem.errors import DataError
from lit_mem.files import atomic
from lit_mem.files.untrusted import read_yaml
from lit_mem.report.history import history_of
from lit_mem.sweep.spec import Trial
from lit_mem.sweep.trial import state

if TYPE_CHECKING:
    import pandas as pd

SIZE = "trainable_parameters"
FIXED = ("trial", "seed", "epoch", "step", SIZE)


def validations(run: Path) -> list[dict[str, float]]:
    """Metrics of a run's validations, in the order of steps, with `epoch` (0: before training) and `step`.

    Args:
        run: a log folder with `memorization.jsonl`, or `metrics.csv`; empty without either.

    Raises:
        DataError: a file is damaged.
    """
    return [each.metrics | {"epoch": each.epoch, "step": each.step} for each in history_of(run).validations]


def size(run: Path) -> int | None:
    """Number of parameters that a run trained, if it was recorded."""
    try:
        _, hparams = read_yaml(run / "hparams.yaml")
    except (OSError, DataError):
        return None
    size = hparams.get(SIZE) if isinstance(hparams, dict) else None
    return size if isinstance(size, int) else None


def attempts(folder: Path) -> list[Path]:
    """The log folders of a trial, in order."""
    return sorted(folder.glob("attempt_*"), key=lambda path: int(path.name.rpartition("_")[2]))


def table(folder: Path, wanted: Sequence[Trial]) -> pd.DataFrame:
    """Metrics of all trials, as far as they have run.

    Args:
        folder: folder of the sweep.
        wanted: its trials.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for trial in wanted:
        runs = attempts(folder / "trials" / trial.name)
        # If attempts overlap, the metrics of the later one count, as training continued from there.
        by_step = {int(row["step"]): row for run in runs for row in validations(run)}
        known = next((n for run in reversed(runs) if (n := size(run)) is not None), None)
        head = {"trial": trial.name, "seed": trial.seed, **trial.values, SIZE: known}
        rows += [head | by_step[step] for step in sorted(by_step)]
    axes = list(wanted[0].values) if wanted else []
    names = sorted({name for row in rows for name in row} - {*FIXED, *axes})
    frame = pd.DataFrame(rows, columns=["trial", "seed", *axes, "epoch", "step", SIZE, *names])
    for axis in axes:
        if any(isinstance(trial.values[axis], str) for trial in wanted):
            frame[axis] = frame[axis].astype(str)
    return frame


def write(folder: Path, frame: pd.DataFrame) -> None:
    """Write `results.csv` and `results.parquet` atomically."""
    atomic.write_text(folder / "results.csv", frame.to_csv(index=False))
    with atomic.whole(folder / "results.parquet") as part:
        frame.to_parquet(part, index=False)


def summary(folder: Path, wanted: Sequence[Trial], header: Mapping[str, Any]) -> dict[str, Any]:
    """Content of `sweep.json`: the axes, and the status of each trial.

    Args:
        folder: folder of the sweep.
        wanted: its trials.
        header: name, question, command, run, limit.
    """
    axes = list(wanted[0].values)
    listed = []
    for trial in wanted:
        known = state(folder / "trials" / trial.name)
        runs = attempts(folder / "trials" / trial.name)
        listed.append(
            {
                "trial": trial.name,
                "values": trial.values,
                "seed": trial.seed,
                "status": known.get("status", "pending"),
                "error": known.get("error"),
                "seconds": known.get("seconds"),
                "folder": str((runs[-1] if runs else folder / "trials" / trial.name).relative_to(folder)),
            }
        )
    return {
        "schema": 1,
        **header,
        "axes": [{"label": axis, "values": list(dict.fromkeys(t.values[axis] for t in wanted))} for axis in axes],
        "seeds": list(dict.fromkeys(trial.seed for trial in wanted)),
        "trials": listed,
    }
