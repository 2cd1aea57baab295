"""How often a trainer's run will be measured."""

from __future__ import annotations

import math

from transformers import Trainer


def planned_looks(trainer: Trainer, every_n_steps: int | None, every_n_epochs: int | None) -> int | None:
    """How many passes a whole training has, from its first step on.

    Args:
        trainer: about to train.
        every_n_steps: the callback's option.
        every_n_epochs: the callback's option.

    Returns:
        The most there can be, with one more for the evaluation that some ends of training bring; None where that is not
        known.
    """
    args, state = trainer.args, trainer.state
    steps, epochs = int(state.max_steps), math.ceil(state.num_train_epochs or 0)
    if steps <= 0:
        return None
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    if every_n_steps:
        return steps // every_n_steps + 1
    if every_n_epochs or strategy in ("no", "epoch"):
        return max(1, epochs) // (every_n_epochs or 1) + 1
    every = args.eval_steps if args.eval_steps and args.eval_steps >= 1 else (args.eval_steps or 1) * steps
    return math.ceil(steps / max(1, every)) + 1
