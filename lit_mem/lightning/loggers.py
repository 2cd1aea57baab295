"""Plots and tables to whatever loggers show them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from lit_mem.plots.output import any_script, pixels


def log_plot(trainer: pl.Trainer, name: str, plot: Any) -> None:
    """Give a plot to every logger that shows images; others go without."""
    from lightning.pytorch.loggers import TensorBoardLogger

    step = _step(trainer)
    with any_script():
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, plot, global_step=step)
            elif hasattr(logger, "log_image"):
                logger.log_image(name, [pixels(plot)], step=step)


def log_table(trainer: pl.Trainer, name: str, table: str) -> None:
    """Give a table in Markdown to TensorBoard; it must hold no training text."""
    from lightning.pytorch.loggers import TensorBoardLogger

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, table, global_step=_step(trainer))


def _step(trainer: pl.Trainer) -> int:
    """Where Lightning puts the scalars of this validation."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
