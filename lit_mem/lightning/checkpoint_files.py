"""The files of a run's checkpoints: written in a folder of their own first, then put in place, each whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lightning.pytorch as pl

from lit_mem.files import atomic, modes

KEPT: Final = ("best", "safe", "last")
"""In the order in which they get their names, so that the others are in place when `last.ckpt` names them.

A run that is killed between two of them is resumed from the older `last.ckpt`, and then saves the newer ones again."""


class CheckpointFiles:
    """Names and writes `best.ckpt`, `safe.ckpt` and `last.ckpt` in one folder, and the adapter's folder beside each.

    Args:
        folder: of the checkpoints.
        extension: of a checkpoint's file.

    Attributes:
        stage: the folder, beside the checkpoints, of what is not finished yet.
    """

    def __init__(self, folder: Path, extension: str) -> None:
        self.folder, self.extension, self.stage = folder, extension, folder / ".saving"

    def checkpoint(self, which: str) -> str:
        """Path of one checkpoint."""
        return str(self.folder / f"{which}{self.extension}")

    def settle(self) -> None:
        """Remove what a killed run has left half done."""
        atomic.remove(self.stage)
        for which in KEPT:
            atomic.settle(Path(self.checkpoint(which)))
            atomic.settle(self.folder / f"{which}-adapter")

    def write(self, trainer: pl.Trainer, kept: list[str], weights_only: bool, export: Callable[[Path], None]) -> None:
        """Save a checkpoint once, and put it in place under each of these names; every rank must call it.

        Args:
            trainer: that is saved.
            kept: some of `KEPT`, "last" among them.
            weights_only: leave the optimizer out, and all else that a resumed run needs.
            export: writes the adapter's folder, on rank zero.

        Raises:
            OSError: they cannot be written; what was there before is there still.
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
        """Put the stage's `last` checkpoint and adapter in place under these names, once all of it is on the disk."""
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
