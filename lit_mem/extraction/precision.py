"""Keeps the trainer's precision out of the measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_precision(dtype: torch.dtype, device: str = "cpu") -> Iterator[None]:
    """Compute in `dtype` on a type of device ("cpu", "cuda") whatever precision the trainer has set.

    Under a trainer of 16 bits, autocast is on, or new tensors have 16 bits. torchmetrics counts words in new tensors,
    and bfloat16 has no whole numbers beyond 256 without gaps.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
