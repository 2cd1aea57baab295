"""Splits and subsets: the same rows for the same seed on every machine."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from lit_mem.data.deduplicate import deduplicated, without_repeats
from lit_mem.data.heldout_share import heldout_fraction
from lit_mem.data.row_texts import contiguous
from lit_mem.errors import ConfigError, DataError, check_range

if TYPE_CHECKING:
    from datasets import Dataset

    from lit_mem.data.options import DataOptions
    from lit_mem.data.sources.base import Corpus

log = logging.getLogger(__name__)


def split(corpus: Corpus, options: DataOptions) -> tuple[Dataset, Dataset, int]:
    """The training and held-out rows of a corpus: split by group if it has no held-out set, and subsampled.

    Returns:
        (M,) members; (N,) held-out rows, each text once; and the number of held-out rows before subsampling.

    Raises:
        DataError: it cannot be split, or a side is empty.
        ConfigError: a size is above the number of rows.
    """
    train, heldout = corpus.train, corpus.heldout
    if heldout is None:
        try:
            fraction = options.heldout_fraction
            fraction = heldout_fraction(len(train)) if fraction is None else fraction
            train, heldout = split_by_group(train, fraction, options.seed)
        except DataError as error:
            raise DataError(f"{corpus.name} has no held-out set: {error}") from error
        how = "by group" if len(set(corpus.train["group"][:])) < len(corpus.train) else "at random"
        log.info("%s has no held-out set: %d of its texts are held out, %s.", corpus.name, len(heldout), how)
    train = deduplicated(train, options.deduplicate)
    sizes = ("train_size", options.train_size, train), ("heldout_size", options.heldout_size, heldout)
    for name, size, rows in sizes:
        if size is not None and size > len(rows):
            raise ConfigError(
                f"data.{name} is {size}, but {corpus.name} has only {len(rows)} such texts; "
                f"set it to null to use all {len(rows)}"
            )
    train, of_heldout = take(train, options.train_size, options.seed), len(heldout)
    heldout = without_repeats(take(heldout, options.heldout_size, options.seed), "held-out")
    if not len(train) or not len(heldout):
        raise DataError(
            f"{corpus.name}: found {len(train)} members and {len(heldout)} held-out texts; expected at least one of "
            "each"
        )
    return contiguous(train), contiguous(heldout), of_heldout


def split_by_group(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Hold out about a `fraction` of the rows so that no group is on both sides.

    Groups are ordered by a hash of seed and name, and the first ones are held out, up to the number of rows closest to
    the fraction. This depends neither on a library's random numbers nor on the order of rows, and is unbiased in group
    size.

    Args:
        dataset: (N,) rows with a column `group` (str).
        fraction: share of the rows to hold out, between 0 and 1.
        seed: seed of the split.

    Returns:
        The rows to train on and the held-out rows, both in their original order and neither empty.

    Raises:
        ConfigError: `fraction` is not between 0 and 1.
        DataError: there are fewer than two groups, so one side would be empty.
    """
    check_range("the held-out fraction", fraction, above=0, below=1)
    groups = dataset["group"][:]
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise DataError(
            f"cannot hold out rows by group: found {len(sizes)} groups in {len(groups)} rows, "
            "expected at least 2 (check group_column, or give a held-out set)"
        )
    order = sorted(sizes, key=lambda group: (_hash(seed, group), group))
    held = list(accumulate(sizes[group] for group in order))[:-1]
    wanted = fraction * len(groups)
    n_groups = min(range(len(held)), key=lambda i: abs(held[i] - wanted)) + 1
    out = frozenset(order[:n_groups])
    n_out = held[n_groups - 1]
    if not wanted / 2 <= n_out <= wanted * 2:
        log.warning(
            "%d of %d rows are held out instead of %.1f, since its groups are too large.",
            n_out, len(groups), wanted,
        )  # fmt: skip
    train = [i for i, group in enumerate(groups) if group not in out]
    heldout = [i for i, group in enumerate(groups) if group in out]
    return dataset.select(train), dataset.select(heldout)


def take(dataset: Dataset, n: int | None, seed: int) -> Dataset:
    """A random subset of `n` rows in their original order; all if `n` is None or not below their number.

    Raises:
        ConfigError: `n` is below 1.
    """
    check_range("the number of rows", n, at_least=1, or_null=True)
    if n is None or n >= len(dataset):
        return dataset
    return dataset.select(sorted(random.Random(seed).sample(range(len(dataset)), n)))


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode()).digest()
