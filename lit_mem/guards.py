"""Context managers that leave training untouched, whatever happens inside them.

Lightning's `isolate_rng` does not restore the random state when the body raises, and disabling an adapter unfreezes
parameters that the user froze.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import nn


def random_state() -> dict[str, Any]:
    """State of every global random generator, as plain types and tensors (safe for `weights_only` loading)."""
    version, keys, gauss = random.getstate()
    kind, words, position, has_gauss, cached = cast("tuple[Any, ...]", np.random.get_state(legacy=True))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(keys), gauss],
        "numpy": [kind, torch.from_numpy(words.astype(np.int64)), position, has_gauss, cached],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every global random generator back to what `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, words, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), position, has_gauss, cached))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restore the global random state afterwards, so that what the body draws does not affect training."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluate without gradients; restore each submodule's `training` flag afterwards."""
    flags = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in flags:
            m.training = training


@contextmanager
def preserved_requires_grad(module: nn.Module) -> Iterator[None]:
    """Restore the `requires_grad` flag of every parameter afterwards."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)
