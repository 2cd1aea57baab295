"""Metrics of the privacy cost for the person with the most rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lightning.pytorch as pl

from lit_mem.privacy.accountant import Steps
from lit_mem.privacy.group import MOST_ROWS, group_epsilon

_EPSILON: Final = "privacy/epsilon_largest_group"
_ROWS: Final = "privacy/largest_group"


def largest_group(trainer: pl.Trainer | None) -> int:
    """Largest number of training rows of one person or document, if the data module knows groups; else 1."""
    return int(getattr(getattr(trainer, "datamodule", None), "largest_group", 1))


def group_names(rows: int) -> list[str]:
    """Names of the metrics of `of_group`."""
    return [] if rows < 2 else [_ROWS] if rows > MOST_ROWS else [_ROWS, _EPSILON]


def of_group(history: Sequence[Steps], delta: float, rows: int) -> dict[str, float]:
    """Rows of the largest group, and an upper bound on epsilon of a person with that many (`lit_mem.privacy.group`).

    Args:
        history: the steps so far.
        delta: δ of the bound, that of `privacy/epsilon`.
        rows: rows of the largest group; {} for 1, and no epsilon above `MOST_ROWS`.
    """
    found = {_ROWS: float(rows)} if rows > 1 else {}
    return found | {_EPSILON: group_epsilon(history, delta, rows)} if 1 < rows <= MOST_ROWS else found
