"""What a trainer's limits of batches leave of the texts."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from lit_mem.data.batching import ScoringBatches
from lit_mem.errors import ConfigError
from lit_mem.types import Batch


def reject_overfit_batches(trainer: Any) -> None:
    """Training on a few batches is rejected, as all members are scored.

    Raises:
        ConfigError: the trainer has `overfit_batches`.
    """
    if (n := getattr(trainer, "overfit_batches", 0)) > 0:
        raise ConfigError(
            f"trainer.overfit_batches is {n}: it trains on a few texts, and all members "
            "would be judged; set data.train_size to train on few texts, and leave it out"
        )


def limited_training(trainer: Any, texts: int, per_step: int) -> str | None:
    """A line on an epoch that trains on fewer than all texts; None where it trains on all, and in a dry run.

    Args:
        trainer: None: nothing is limited.
        texts: that are trained on.
        per_step: of them on all processes together.
    """
    if trainer is None or getattr(trainer, "fast_dev_run", False):
        return None
    limit: int | float = getattr(trainer, "limit_train_batches", 1.0)
    batches = -(-texts // per_step)
    if not 0 < (n := limit if isinstance(limit, int) else int(batches * limit)) < batches:
        return None
    return (
        f"trainer.limit_train_batches is {limit}: an epoch trains on {n} of {batches} batches, but all "
        f"{texts} texts count as members in every figure; data.train_size takes fewer instead."
    )


def limited_scoring(
    trainer: Any, option: str, others: DataLoader[Batch], members: DataLoader[Batch], name: str
) -> tuple[int, int, str | None]:
    """How many of two sets a pass scores, and a line where these are not all.

    Args:
        trainer: None: nothing is limited.
        option: its limit of batches, "limit_val_batches" or "limit_test_batches".
        others: the scoring loader of the held-out or test texts.
        members: that of the members.
        name: what the others are called.

    Returns:
        How many others and how many members are scored on all processes together, and the line or None.
    """
    limit: int | float = 1.0 if trainer is None else getattr(trainer, option, 1.0)
    first, second = _within(others, limit), _within(members, limit)
    n_others, n_members = _within(others, 1.0), _within(members, 1.0)
    if not 0 < first + second < n_others + n_members:
        return first, second, None
    limited_by = f"fast_dev_run is {limit}" if getattr(trainer, "fast_dev_run", False) else f"{option} is {limit}"
    line = (
        f"trainer.{limited_by}: only the longest texts are scored, {first} of "
        f"{n_others} {name} and {second} of {n_members} members, so no figure is that of the whole sets; "
        "data.heldout_size and data.members_size take random texts instead."
    )
    return first, second, line


def _within(loader: DataLoader[Batch], limit: int | float) -> int:
    """How many examples of a scoring loader, on all processes, a limit of batches leaves: the longest."""
    order = loader.sampler
    assert isinstance(order, ScoringBatches)
    batches = limit if isinstance(limit, int) else int(len(loader) * limit)
    return sum(len(group) for group in order.groups[: batches * order.num_replicas])
