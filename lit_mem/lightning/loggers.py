"""Send plots and tables to each kind of logger that supports them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import lightning.pytorch as pl

from lit_mem.audit.measure import Table
from lit_mem.functional.plain_text import markdown_table, printable
from lit_mem.lightning.of_trainer import step_of
from lit_mem.plots.output import any_script, pixels


class Kind(NamedTuple):
    """How a kind of logger logs a plot and a table; each function takes logger, name, content and step."""

    plot: Callable[[Any, str, Any, int], object]
    table: Callable[[Any, str, Table, int], object]


KINDS: Final[dict[str, Kind]] = {
    "TensorBoardLogger": Kind(
        lambda logger, name, plot, step: logger.experiment.add_figure(name, plot, global_step=step),
        lambda logger, name, table, step: logger.experiment.add_text(name, markdown_table(*table), global_step=step),
    ),
    "WandbLogger": Kind(
        lambda logger, name, plot, step: logger.log_image(name, [pixels(plot)], step=step),
        lambda logger, name, table, step: logger.log_table(name, [*table.header], _cells(table), step=step),
    ),
    # MLflow stores files without a step, so the step is part of the name.
    "MLFlowLogger": Kind(
        lambda logger, name, plot, step: logger.experiment.log_figure(logger.run_id, plot, _file(name, step, "png")),
        lambda logger, name, table, step: logger.experiment.log_text(
            logger.run_id, markdown_table(*table), _file(name, step, "md")
        ),
    ),
    "CometLogger": Kind(
        lambda logger, name, plot, step: logger.experiment.log_figure(name, plot, step=step),
        lambda logger, name, table, step: logger.experiment.log_table(
            _file(name, step, "csv"), _cells(table), headers=[*table.header]
        ),
    ),
}
"""By the name of Lightning's class, so that no logger's package is imported."""


def log_plot(trainer: pl.Trainer, name: str, draw: Callable[[], Any]) -> None:
    """Send a plot to every logger that supports images; it is drawn only if there is one, as drawing is slow."""
    loggers: list[Any] = [one for one in trainer.loggers if _kind_of(one) or callable(getattr(one, "log_image", None))]
    if not loggers:
        return
    with any_script():
        plot = draw()
        for logger in loggers:
            if (kind := _kind_of(logger)) is not None:
                kind.plot(logger, name, plot, step_of(trainer))
            else:
                logger.log_image(name, [pixels(plot)], step=step_of(trainer))


def log_table(trainer: pl.Trainer, name: str, table: Table) -> None:
    """Send a table to every logger that supports tables; it must hold no training text."""
    for logger in trainer.loggers:
        if (kind := _kind_of(logger)) is not None:
            kind.table(logger, name, table, step_of(trainer))


def _kind_of(logger: object) -> Kind | None:
    names = (one.__name__ for one in type(logger).__mro__ if one.__module__.startswith("lightning.pytorch."))
    return next((KINDS[name] for name in names if name in KINDS), None)


def _file(name: str, step: int, form: str) -> str:
    return f"{name}/step_{step:06d}.{form}"


def _cells(table: Table) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in table.rows]
