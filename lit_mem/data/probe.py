"""Select the members to score: all of a small set, a sample of a large one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Final

import torch

from lit_mem.errors import ConfigError

log = logging.getLogger(__name__)

ALL_UP_TO: Final = 2000
"""Up to this many distinct members, all are scored by default."""


def default_size(n_members: int, n_heldout: int) -> int:
    """Default number of distinct members to score.

    >>> default_size(95, 25), default_size(2898, 300), default_size(50_000, 5000)
    (95, 2000, 5000)
    """
    return n_members if n_members <= ALL_UP_TO else min(n_members, max(ALL_UP_TO, n_heldout))


def scored_members(texts: Sequence[Hashable], groups: Sequence[str], size: int, seed: int) -> list[int]:
    """A random sample of the members, each at most once.

    One row of each text that occurs several times comes first, then one of each group (a patient, a document) if rows
    share groups, then others, and repeated texts last, up to `size`. So texts of these kinds are over-represented, and
    if `size` is the number of distinct texts, each is scored once.

    Args:
        texts: (N,) texts of the members, or numbers that are equal for equal texts.
        groups: (N,) names of their groups.
        size: number of members.
        seed: seed of the sample.

    Returns:
        min(N, size) indices in ascending order.
    """
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    if size >= len(texts):
        return sorted(order)
    counts, grouped = Counter(texts), len(set(groups)) < len(groups)
    first: dict[int, None] = {}
    seen: set[Hashable] = set()
    for i in order:
        if counts[texts[i]] > 1 and texts[i] not in seen:
            seen.add(texts[i])
            first[i] = None
    met = {groups[i] for i in first}
    for i in order if grouped else ():
        if groups[i] not in met:
            met.add(groups[i])
            first[i] = None
    seen = {texts[i] for i in first}
    for i in order:
        if texts[i] not in seen:
            seen.add(texts[i])
            first[i] = None
    chosen = [*first, *(i for i in order if i not in first)]
    return sorted(chosen[:size])


def members_probe(
    texts: Sequence[Hashable], groups: Sequence[str], requested: int | None, heldout: int, of_heldout: int, seed: int
) -> list[int]:
    """Select the members to score; logged if not all.

    Args:
        texts: (N,) texts of the members, or numbers that are equal for equal texts.
        groups: (N,) names of their groups.
        requested: number of members; None: `default_size` of the distinct texts, since copies are not independent.
        heldout: number of held-out texts that are scored.
        of_heldout: number of held-out texts.
        seed: seed of the sample.

    Returns:
        Indices in ascending order.

    Raises:
        ConfigError: more are requested than available.
    """
    n, different = len(texts), len(set(texts))
    size = requested or default_size(different, heldout)
    if size > n:
        raise ConfigError(
            f"data.members_size is {size}, but only {n} members are trained on; set it to null for the default"
        )
    chosen = scored_members(texts, groups, size, seed)
    if size == different < n:
        log.info(
            "Scored: each of the %d distinct texts among %d members, once; %d of %d held-out texts.",
            size, n, heldout, of_heldout,
        )  # fmt: skip
    elif size < n:
        log.info(
            "Scored: %d of %d members, at random, but first one row of each text that occurs several times and of "
            "each group; %d of %d held-out texts.",
            size, n, heldout, of_heldout,
        )  # fmt: skip
    return chosen
