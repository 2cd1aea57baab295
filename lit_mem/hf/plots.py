"""Send plots to a trainer's loggers that support them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer


def show_plots(trainer: Trainer, plots: Mapping[str, Callable[[], Any]]) -> None:
    """Draw plots for TensorBoard.

    Args:
        trainer: its callbacks include the loggers.
        plots: functions by name, each drawing a matplotlib figure.
    """
    writers = [one for one in (getattr(cb, "tb_writer", None) for cb in trainer.callback_handler.callbacks) if one]
    if not writers:
        return
    from matplotlib import pyplot

    for name, draw in plots.items():
        drawn = draw()
        for writer in writers:
            writer.add_figure(name, drawn, global_step=trainer.state.global_step, close=False)
        pyplot.close(drawn)
