"""Effects of a trainer's batch limits on the texts."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from lit_mem.data.batching import ScoringBatches
from lit_mem.errors import ConfigError
from lit_mem.types import Batch


def reject_overfit_batches(trainer: Any) -> None:
    """Reject `overfit_batches`: it trains on few texts, while all members are scored.

    Raises:
        ConfigError: the trainer has `overfit_batches`.
    """
    if (n := getattr(trainer, "overfit_batches", 0)) > 0:
        raise ConfigError(
            f"trainer.overfit_batches is {n}, which trains on a few texts while all members are scored; "
            "expected it unset: set data.train_size to train on few texts"
        )


def limited_training(trainer: Any, texts: int, per_step: int) -> str | None:
    """A message if an epoch trains on fewer than all texts; None if it trains on all, or in a dry run.

    Args:
        trainer: None: no limit.
        texts: number of training texts.
        per_step: texts per step over all processes.
    """
    if trainer is None or getattr(trainer, "fast_dev_run", False):
        return None
    limit: int | float = getattr(trainer, "limit_train_batches", 1.0)
    batches = -(-texts // per_step)
    if not 0 < (n := limit if isinstance(limit, int) else int(batches * limit)) < batches:
        return None
    return (
        f"trainer.limit_train_batches is {limit}: an epoch trains on {n} of {batches} batches, but all "
        f"{texts} texts count as members in every metric; set data.train_size to use fewer."
    )


def limited_scoring(
    trainer: Any, option: str, others: DataLoader[Batch], members: DataLoader[Batch], name: str
) -> tuple[int, int, str | None]:
    """How many texts of two sets a pass scores, and a message if not all.

    Args:
        trainer: None: no limit.
        option: its limit of batches, "limit_val_batches" or "limit_test_batches".
        others: the scoring loader of the held-out or test texts.
        members: the scoring loader of the members.
        name: name of the other set.

    Returns:
        Numbers of others and of members scored over all processes, and the message or None.
    """
    limit: int | float = 1.0 if trainer is None else getattr(trainer, option, 1.0)
    first, second = _within(others, limit), _within(members, limit)
    n_others, n_members = _within(others, 1.0), _within(members, 1.0)
    if not 0 < first + second < n_others + n_members:
        return first, second, None
    limited_by = f"fast_dev_run is {limit}" if getattr(trainer, "fast_dev_run", False) else f"{option} is {limit}"
    line = (
        f"trainer.{limited_by}: only the longest texts are scored, {first} of "
        f"{n_others} {name} and {second} of {n_members} members, so no metric covers the whole sets; "
        "set data.heldout_size and data.members_size to score random texts instead."
    )
    return first, second, line


def _within(loader: DataLoader[Batch], limit: int | float) -> int:
    """Number of examples of a scoring loader, over all processes, within a batch limit."""
    order = loader.sampler
    assert isinstance(order, ScoringBatches)
    batches = limit if isinstance(limit, int) else int(len(loader) * limit)
    return sum(len(group) for group in order.groups[: batches * order.num_replicas])
