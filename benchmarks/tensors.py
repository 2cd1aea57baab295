"""Count the bytes of live tensors, on any device, independent of the allocator."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Made(TorchDispatchMode):
    """Counts the bytes of tensors created inside the context.

    Attributes:
        most: maximum bytes at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most, self._now = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count its outputs."""
        for given in tree_leaves((args, kwargs)):  # created earlier, such as weights
            if isinstance(given, torch.Tensor):
                self._count(given.untyped_storage(), 0)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                memory = tensor.untyped_storage()
                self._count(memory, memory.nbytes())
        return made

    def _count(self, memory: torch.UntypedStorage, size: int) -> None:
        """Count `size` bytes for a storage that is new, until it is freed: its address may be used again."""
        place = memory._cdata
        if place in self._known:
            return
        self._known.add(place)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(memory, self._freed, place, size)

    def _freed(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size


def made_at_once(work: Callable[[], Any]) -> int:
    """Peak bytes of tensors created by `work`."""
    work()  # persistent allocations are made here
    with Made() as made:
        work()
    return made.most
