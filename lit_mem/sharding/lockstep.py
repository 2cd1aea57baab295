"""Keep ranks that hold shards of one model in lockstep: they can only run it together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule


class Lockstep:
    """Lets ranks run sharded models different numbers of times, in any order.

    A layer of a sharded model is gathered from all ranks, so all must run it. Within `with lockstep():` each rank runs
    the models as needed. Before each forward pass all ranks agree which model runs; those that did not request it run
    it on one token and discard the result. A rank that is done keeps running for the others. No other collective may be
    called inside. Without sharded models this does nothing.
    """

    def __init__(self) -> None:
        self.roots: list[FSDPModule] = []
        self._inside = False

    def add(self, model: nn.Module) -> None:
        """Register a model's sharded part, if it has one."""
        root = next((m for m in model.modules() if isinstance(m, FSDPModule)), None)
        if root is not None and root not in self.roots:
            self.roots.append(root)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Every rank must enter; reentrant."""
        if not self.roots or self._inside:
            yield
            return
        self._inside = True
        hooks = [
            root.register_forward_pre_hook(self._before(i), prepend=True)  # type: ignore[attr-defined]
            for i, root in enumerate(self.roots)
        ]
        try:
            yield
            self._agree(None)
        finally:
            self._inside = False
            for hook in hooks:
                hook.remove()

    def _before(self, index: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            if self._inside:
                self._agree(index)

        return hook

    def _agree(self, wanted: int | None) -> None:
        """Run what other ranks request until it is this rank's turn; with None, until no rank requests anything."""
        while True:
            votes = self._votes(wanted)
            turn = next((i for i, n in enumerate(votes) if n), None)
            if turn == wanted:
                return
            assert turn is not None  # this rank's own vote is among them
            self._run_on_one_token(self.roots[turn])

    def _votes(self, wanted: int | None) -> list[int]:
        votes = torch.zeros(len(self.roots), dtype=torch.int64, device=self._device())
        if wanted is not None:
            votes[wanted] = 1
        torch.distributed.all_reduce(votes)
        return votes.tolist()  # type: ignore[no-any-return]

    def _run_on_one_token(self, root: Any) -> None:
        self._inside = False  # its hook must not vote
        try:
            with torch.no_grad():
                root(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=self._device()), use_cache=False)
        finally:
            self._inside = True

    def _device(self) -> torch.device:
        parameter: Tensor = next(self.roots[0].parameters())  # type: ignore[attr-defined]
        return parameter.device
