"""Number of measuring passes of a trainer's run."""

from __future__ import annotations

import math

from transformers import Trainer

from lit_mem.hf.names import monitored


def planned_looks(trainer: Trainer, every_n_steps: int | None, every_n_epochs: int | None) -> int | None:
    """Number of passes in a whole training, from its first step on.

    Args:
        trainer: about to train.
        every_n_steps: the callback's option.
        every_n_epochs: the callback's option.

    Returns:
        An upper bound, including one more for an evaluation that may follow training; None if not known.
    """
    args, state = trainer.args, trainer.state
    steps, epochs = int(state.max_steps), max(1, math.ceil(state.num_train_epochs or 0))
    if steps <= 0:
        return None
    strategy = str(getattr(args.eval_strategy, "value", args.eval_strategy))
    every = args.eval_steps if args.eval_steps and args.eval_steps >= 1 else (args.eval_steps or 1) * steps
    evaluations = {"no": 0, "epoch": epochs}.get(strategy, math.ceil(steps / max(1, every)))
    if every_n_steps is None and every_n_epochs is None:
        return (evaluations or epochs) + 1
    own = steps // every_n_steps if every_n_steps else epochs // (every_n_epochs or 1)
    return own + (0 if monitored(trainer) is None else evaluations) + 1
