"""One line per epoch in the console."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.audit.row import COLUMNS, heading, row
from lit_mem.lightning.auditing import latest_metrics, whole_check


class EpochTable(Callback):
    """Prints the metrics of every validation as a row of a growing table, the first row before training.

    Only in a fit: the commands `validate` and `test` print such a row at the end, with or without this callback.

    Args:
        columns: logged names to show; None: perplexities, AUROCs and extraction rates. Names that are never logged
            are left out.
    """

    def __init__(self, columns: list[str] | None = None) -> None:
        self.columns = columns if columns is not None else list(COLUMNS)
        self._shown: list[str] = []

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the row before training, if the whole validation set was run."""
        if whole_check(trainer) and not trainer.global_step:
            self._row("start", trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print a row."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._row(str(trainer.current_epoch + 1), trainer, pl_module)

    def _row(self, epoch: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = latest_metrics(trainer)
        if not self._shown:
            self._shown = [name for name in self.columns if name in metrics]
            if "privacy/epsilon" in self._shown and (note := getattr(pl_module, "epsilon_note", "")):
                pl_module.print(note)
            pl_module.print(heading(self._shown))
        pl_module.print(row(epoch, self._shown, metrics))
