"""Data: text sources, splits, validity checks, and batches."""

from importlib import import_module
from typing import Any

_DATA_MODULE = "lit_mem.lightning.datamodule"


def __getattr__(name: str) -> Any:
    """`TextDataModule` under the name in configurations, imported lazily: this package does not need Lightning."""
    if name == "TextDataModule":
        return getattr(import_module(_DATA_MODULE), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
