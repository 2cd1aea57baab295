"""Write the results of the data checks to the run's folder, for the report."""

from __future__ import annotations

import lightning.pytorch as pl

from lit_mem.data.checks import TrustReport
from lit_mem.files import atomic
from lit_mem.files.origin import CHECKS
from lit_mem.functional.planning import Scored
from lit_mem.lightning.run_folder import run_folder


def write_checks(trainer: pl.Trainer | None, trust: TrustReport, scored: Scored) -> bool:
    """Write them with the number of scored texts, if the run has a logger; every process must call it.

    Returns:
        Whether the file was written: not without a logger or trainer, or in a dry run.

    Raises:
        OSError: it cannot be written.
        OSError: it cannot be written.
    """
    if trainer is None or not trainer.loggers or getattr(trainer, "fast_dev_run", False):
        return False
    folder = run_folder(trainer)  # on every process
    if trainer.is_global_zero:
        atomic.write_text(folder / CHECKS, trust.to_json(scored._asdict()))
    return True
