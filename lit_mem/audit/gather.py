"""Gather Python objects over the ranks of `torch.distributed`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

import torch

from lit_mem.errors import LitMemError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")


def gathered(mine: T) -> list[T]:
    """The object of each rank, by rank; every rank must call it."""
    if not _started():
        return [mine]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def ranks() -> tuple[int, int]:
    """World size and rank of this process."""
    if not _started():
        return 1, 0
    return torch.distributed.get_world_size(), torch.distributed.get_rank()


def is_first_process() -> bool:
    """Whether this is rank zero."""
    return ranks()[1] == 0


def _started() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


class Process(Protocol):
    """A process of a distributed run, such as Lightning's Trainer."""

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank zero."""
        ...


def on_rank_zero(process: Process, make: Callable[[], T]) -> T | None:
    """Run `make` on rank zero and return its result there, None on other ranks; every rank must call it.

    An error on rank zero is raised on every rank, so that none hangs.

    Raises:
        LitMemError: `make` raised it.
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
        """All items set on any rank since the last `reset`, by key; every rank must call it. Each is sent once."""
        for part in gathered(self._mine):
            self._all.update(part)
        self._mine = {}
        return self._all

    def reset(self) -> None:
        """Drop everything."""
        self._mine, self._all = {}, {}
