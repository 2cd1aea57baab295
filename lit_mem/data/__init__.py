"""Data: sources of text, splits, checks of trustworthiness, and batches."""

from importlib import import_module
from typing import Any

_DATA_MODULE = "lit_mem.lightning.datamodule"


def __getattr__(name: str) -> Any:
    """`TextDataModule` under the name that configurations use, imported when used: this room does without Lightning."""
    if name == "TextDataModule":
        return getattr(import_module(_DATA_MODULE), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
