"""The last lines of a command that ran a trainer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mem.audit import closing
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.last_line import audited
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.run_folder import known_folder
from lit_mem.lightning.table import EpochTable
from lit_mem.report.history import is_run

log = logging.getLogger(__name__)


def how_to_resume(trainer: pl.Trainer) -> str:
    """Suffix of the message about a stopped fit: how to resume from the last checkpoint."""
    keepers = [keeper for keeper in trainer.checkpoint_callbacks if isinstance(keeper, ModelCheckpoint)]
    paths = [keeper.last_model_path for keeper in keepers] + [str(trainer.ckpt_path or "")]
    path = next((path for path in paths if path and Path(path).exists()), None)
    return f"; to resume, run the same command with --ckpt_path {path}" if path else " before the first checkpoint"


def print_metrics(trainer: pl.Trainer, label: str) -> None:
    """Print every metric of a validation or test on standard output, one per line; log a table and a summary.

    Lightning's own table has a column per loader and truncates long names.

    Args:
        trainer: the trainer that has just finished; only rank zero prints.
        label: label of the table's row.
    """
    callbacks = callbacks_of(trainer)
    if not trainer.is_global_zero:
        return
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    columns = next((callback.columns for callback in callbacks if isinstance(callback, EpochTable)), None)
    # Scripts read standard output: print nothing but the metrics.
    print("\n".join(closing.metric_lines(metrics)), flush=True)  # noqa: T201  (what the command is for)
    for line in closing.table(metrics, label, columns):
        log.info("%s", line)
    audit_of(trainer).log_verdicts()
    sentence = closing.sentence(metrics)
    lines, conditions = audited(trainer)
    for line in [*([sentence] if sentence else []), *lines]:
        log.info("%s", line)
    print_next_steps(trainer, conditions)


def print_next_steps(trainer: pl.Trainer, conditions: Sequence[str] = ()) -> None:
    """Log where the run's files are, and the command that makes a page of them.

    Args:
        trainer: that has just finished; only rank zero logs.
        conditions: such as "mia/reference_auroc > 0.7", for the command.
    """
    if not trainer.is_global_zero:
        return
    folder, dry = known_folder(trainer), getattr(trainer, "fast_dev_run", False)
    without = "trainer.fast_dev_run" if dry else "trainer.logger is false"
    recorded = folder is not None and is_run(folder)
    for line in closing.next_steps(None if folder is None else str(folder), recorded, conditions, without):
        log.info("%s", line)
