"""The learning rate by step: a warm-up, followed by constant, linear or cosine."""

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
    """An optimizer with its schedule, in the format of `configure_optimizers`.

    Args:
        optimizer: at its highest learning rate.
        shape: shape after the warm-up.
        warmup_fraction: share of all steps over which the learning rate rises from 0.
        all_steps: gives the number of steps of the whole fit, inf if not known; called only if needed.

    Returns:
        The value for Lightning; and the number of steps of the schedule, 0 if it needs none.

    Raises:
        ConfigError: the schedule needs the number of steps, which is not known.
    """
    if shape == "constant" and not warmup_fraction:
        return optimizer, 0
    from transformers import get_scheduler

    steps = all_steps()
    if math.isinf(steps):
        raise ConfigError(
            f"model.lr_schedule is {shape} with a warm-up of {warmup_fraction:g}, which needs the "
            "number of steps; set trainer.max_epochs or trainer.max_steps, or use constant without warm-up"
        )
    schedule = get_scheduler(
        "constant_with_warmup" if shape == "constant" else shape,
        optimizer,
        num_warmup_steps=round(steps * warmup_fraction),
        num_training_steps=int(steps),
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}, int(steps)
