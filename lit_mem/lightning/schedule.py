"""The learning rate by step: a warm-up, then constant, linear or cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch.optim import Optimizer

from lit_mem.errors import ConfigError

Shape = Literal["constant", "linear", "cosine"]


def scheduled(
    optimizer: Optimizer, shape: Shape, warmup_fraction: float, all_steps: Callable[[], float]
) -> tuple[Any, int]:
    """An optimizer with its schedule, as `configure_optimizers` returns it.

    Args:
        optimizer: at its highest learning rate.
        shape: after the warm-up.
        warmup_fraction: share of all steps over which the learning rate rises from 0.
        all_steps: number of steps of the whole fit, inf where it is not known; called only where it is needed.

    Returns:
        For Lightning; and how many steps the schedule is over, 0 where it needs none to be known.

    Raises:
        ConfigError: the schedule needs the number of steps, and that is not known.
    """
    if shape == "constant" and not warmup_fraction:
        return optimizer, 0
    from transformers import get_scheduler

    steps = all_steps()
    if math.isinf(steps):
        raise ConfigError(
            f"model.lr_schedule is {shape} with a warm-up of {warmup_fraction:g}, which needs the "
            "number of steps; set trainer.max_epochs or trainer.max_steps, or take constant and no warm-up"
        )
    schedule = get_scheduler(
        "constant_with_warmup" if shape == "constant" else shape,
        optimizer,
        num_warmup_steps=round(steps * warmup_fraction),
        num_training_steps=int(steps),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}, int(steps)
