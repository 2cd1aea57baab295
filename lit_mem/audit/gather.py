"""Python objects, the same on every rank of whatever has started `torch.distributed`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch

from lit_mem.errors import LitMemError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


def gathered(mine: T) -> list[T]:
    """What each rank gave, by rank; every rank must call it."""
    if not _started():
        return [mine]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def ranks() -> tuple[int, int]:
    """How many processes there are, and which one this is."""
    if not _started():
        return 1, 0
    return torch.distributed.get_world_size(), torch.distributed.get_rank()


def is_first_process() -> bool:
    """Whether this is rank zero."""
    return ranks()[1] == 0


def _started() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class Process(Protocol):
    """One of the processes of a run, as Lightning's Trainer is."""

    @property
    def is_global_zero(self) -> bool:
        """Whether it is the first."""
        ...


def on_rank_zero(process: Process, make: Callable[[], T]) -> T | None:
    """What the first process made; None on others. What it rejects, all reject, so that none waits; all must call it.

    Raises:
        LitMemError: it could not be made.
        OSError: likewise.
    """
    made: T | None = None
    found: LitMemError | OSError | None = None
    if process.is_global_zero:
        try:
            made = make()
        except (LitMemError, OSError) as error:
            found = error
    for failure in gathered(found):
        if failure is not None:
            raise failure
    return made


class Gathered(Generic[K, V]):
    """A dictionary that every rank fills in part and reads whole."""

    def __init__(self) -> None:
        self._mine: dict[K, V] = {}
        self._all: dict[K, V] = {}

    def __contains__(self, key: K) -> bool:
        return key in self._all or key in self._mine

    def __setitem__(self, key: K, value: V) -> None:
        self._mine[key] = value

    def compute(self) -> dict[K, V]:
        """What all ranks have set since the last `reset`, by key; every rank must call it. Each value travels once."""
        for part in gathered(self._mine):
            self._all.update(part)
        self._mine = {}
        return self._all

    def reset(self) -> None:
        """Drop everything."""
        self._mine, self._all = {}, {}
