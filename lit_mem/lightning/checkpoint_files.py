"""Files of a run's checkpoints, written to a staging folder first and then moved into place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lightning.pytorch as pl

from lit_mem.files import atomic, modes

KEPT: Final = ("best", "safe", "last")
"""In the order in which they are moved into place, so that the others exist when `last.ckpt` refers to them.

A run that is killed in between resumes from the older `last.ckpt`, and saves the newer ones again."""


class CheckpointFiles:
    """Names and writes `best.ckpt`, `safe.ckpt` and `last.ckpt` in one folder, each with its adapter folder.

    Args:
        folder: folder of the checkpoints.
        extension: file extension of a checkpoint.

    Attributes:
        stage: staging folder for unfinished files, beside the checkpoints.
    """

    def __init__(self, folder: Path, extension: str) -> None:
        self.folder, self.extension, self.stage = folder, extension, folder / ".saving"

    def checkpoint(self, which: str) -> str:
        """Path of one checkpoint."""
        return str(self.folder / f"{which}{self.extension}")

    def settle(self) -> None:
        """Remove unfinished files of a killed run."""
        atomic.remove(self.stage)
        for which in KEPT:
            atomic.settle(Path(self.checkpoint(which)))
            atomic.settle(self.folder / f"{which}-adapter")

    def write(self, trainer: pl.Trainer, kept: list[str], weights_only: bool, export: Callable[[Path], None]) -> None:
        """Save a checkpoint once, and keep it under each of these names; every rank must call it.

        Args:
            trainer: the trainer to save.
            kept: some of `KEPT`, including "last".
            weights_only: save neither the optimizer nor other state for resuming.
            export: writes the adapter's folder, on rank zero.

        Raises:
            OSError: they cannot be written; earlier files are intact.
        """
        writes = trainer.is_global_zero
        with atomic.naming(Path(self.checkpoint("last"))):
            try:
                if writes:
                    atomic.remove(self.stage)
                    modes.make_folder(self.stage, fresh=True)
                trainer.strategy.barrier("MemorizationCheckpoint.stage")
                with atomic.temporary_files_in(self.stage):
                    trainer.save_checkpoint(self.stage / "last.ckpt", weights_only)
                if writes:
                    export(self.stage / "last-adapter")
                    self._keep(kept)
            finally:
                if writes:
                    atomic.remove(self.stage)
        trainer.strategy.barrier("MemorizationCheckpoint")

    def _keep(self, kept: list[str]) -> None:
        """Move the staged `last` checkpoint and adapter into place under these names, once all of it is on disk."""
        forms = [form for form in ("-adapter", self.extension) if (self.stage / f"last{form}").exists()]
        for which in set(kept) - {"last"}:
            for form in forms:
                copy(self.stage / f"last{form}", self.stage / f"{which}{form}")
        atomic.sync(self.stage)
        for which in (name for name in KEPT if name in kept):
            for form in forms:
                atomic.put(self.stage / f"{which}{form}", self.folder / f"{which}{form}")
        atomic.sync_names(self.folder)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
