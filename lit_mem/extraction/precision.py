"""Keep the trainer's precision out of the measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def own_precision(dtype: torch.dtype, device: str = "cpu") -> Iterator[None]:
    """Compute in `dtype` on a device type ("cpu", "cuda") regardless of the trainer's precision.

    A 16-bit trainer enables autocast or sets a 16-bit default dtype. torchmetrics counts words in new tensors, and
    bfloat16 cannot represent all integers above 256.
    """
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
