"""A trainer's options in the form of a configuration, for the report."""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from lit_mem.audit.setting import model_section
from lit_mem.hf.canaries import CanarySet
from lit_mem.hf.reference import Frozen


def setting_of(
    trainer: Trainer, given_texts: bool, frozen: Frozen, canaries: CanarySet | None = None
) -> dict[str, Any]:
    """Options by section, as in a Lightning configuration.

    Args:
        trainer: about to train or evaluate.
        given_texts: whether members were given instead of sampled from the training set.
        frozen: the frozen reference.
        canaries: canaries in the training set; None without any.
    """
    args = trainer.args
    optimizer = {
        "class_path": str(getattr(args.optim, "value", args.optim)),
        "init_args": {"lr": args.learning_rate},
    }
    return {
        "model": model_section(trainer.model, frozen) | {"optimizer": optimizer},
        "door": "lit_mem.hf.MemorizationCallback",
        "data": {
            "source": {"class_path": "texts given" if given_texts else "the trainer's training set"},
            "batch_size": args.per_device_train_batch_size,
            "max_length": getattr(args, "max_length", None),
        }
        | ({} if canaries is None else {"canaries": _canaries(canaries)}),
        "trainer": {"max_epochs": f"{args.num_train_epochs:g}" if args.max_steps <= 0 else None},
        "seed_everything": args.seed,
    }


def _canaries(canaries: CanarySet) -> dict[str, Any]:
    """Their source and number, without their texts."""
    repetitions = sorted({one.repetitions for one in canaries.canaries})
    return {"class_path": canaries.source, "init_args": {"n": len(canaries), "repetitions": repetitions}}
