"""Plots to the loggers of a trainer that show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer


def show_plots(trainer: Trainer, plots: Mapping[str, Callable[[], Any]]) -> None:
    """Draw plots, where TensorBoard shows them.

    Args:
        trainer: its callbacks are the loggers.
        plots: by name a function that draws it with matplotlib.
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
