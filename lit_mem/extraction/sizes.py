"""Lengths of n-grams, as an option."""

from __future__ import annotations

from collections.abc import Sequence

from lit_mem.errors import ConfigError


def checked_sizes(sizes: Sequence[int], option: str) -> tuple[int, ...]:
    """Validate lengths of n-grams.

    Raises:
        ConfigError: the list is empty, or one is below 1; `option` names the option in the message.
    """
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"{option} is {list(sizes)}; expected at least one number of tokens, each 1 or more")
    return tuple(sizes)
