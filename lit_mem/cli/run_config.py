"""Save a run's configuration and starting point in the run's folder."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback

from lit_mem.errors import ConfigError
from lit_mem.files import atomic
from lit_mem.files.origin import write_origin
from lit_mem.lightning.run_folder import claim_given_versions, known_folder, run_folder


class RunConfig(SaveConfigCallback):
    """Saves the configuration in the run's folder.

    Attributes:
        taken: the folder set by the user for this run if it already holds a run, else None.
    """

    taken: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save it once; keep all checkpoints in the same folder.

        Raises:
            ConfigError: this run's folder holds another run's logs.
        """
        self._reject_taken(trainer.strategy.broadcast(self.taken))
        if trainer.loggers:
            self._save(trainer)
        for keeper in trainer.checkpoint_callbacks if stage == "fit" else ():
            if isinstance(keeper, ModelCheckpoint) and keeper.dirpath is None:
                keeper.dirpath = str(run_folder(trainer) / "checkpoints")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save it also without a logger, if this run writes anything else."""
        if known_folder(trainer) is not None:
            self._save(trainer)

    def claim(self, trainer: pl.Trainer) -> None:
        """Claim the version folders set by the user, before a logger opens a file there.

        Raises:
            ConfigError: a folder holds a run. With several processes `setup` raises it on all of them.
        """
        self.taken = claim_given_versions(trainer)
        if self.taken is not None:
            trainer.loggers = []  # write nothing there until then
        if trainer.world_size == 1:
            self._reject_taken(self.taken)

    def _reject_taken(self, folder: Path | None) -> None:
        if folder is not None:
            raise ConfigError(
                f"trainer.logger: {folder} already holds a run (its {self.config_filename}); expected a free version, "
                "or none: each run then gets the next one"
            )

    def _save(self, trainer: pl.Trainer) -> None:
        if self.already_saved:
            return
        path = run_folder(trainer) / self.config_filename
        if trainer.is_global_zero:
            # Written atomically: an option lost from a partial file would silently become its default on reuse.
            atomic.write_text(path, self.parser.dump(self.config, skip_none=False))
        self.already_saved = True

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Also save what the run starts from, which is known by now."""
        self.on_train_start(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same if there is no sanity check; private training has a folder by now."""
        if known_folder(trainer) is not None:
            self._save(trainer)
        self._keep_origin(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same in a standalone validation."""
        if trainer.state.fn == "validate":
            self._keep_origin(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same in a test."""
        self._keep_origin(trainer)

    def _keep_origin(self, trainer: pl.Trainer) -> None:
        folder = known_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            command = "fit" if trainer.state.fn is None else trainer.state.fn.value
            write_origin(folder, command, trainer.ckpt_path, trainer.global_step)
