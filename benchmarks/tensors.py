"""How many bytes of tensors there are at once, on any device, whatever an allocator makes of it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Made(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within.

    Attributes:
        most: how many there were at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most, self._now = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and count what it made."""
        for given in tree_leaves((args, kwargs)):  # made before, as the weights are
            if isinstance(given, torch.Tensor):
                self._known.add(given.untyped_storage()._cdata)
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._known:
                memory = tensor.untyped_storage()
                self._add(memory._cdata, memory.nbytes())
                weakref.finalize(memory, self._add, memory._cdata, -memory.nbytes())
        return made

    def _add(self, place: int, size: int) -> None:
        (self._known.add if size > 0 else self._known.discard)(place)
        self._now += size
        self.most = max(self.most, self._now)


def made_at_once(work: Callable[[], Any]) -> int:
    """Most bytes of tensors that there were at once, of those that `work` made."""
    work()  # what is made once stays
    with Made() as made:
        work()
    return made.most
