"""Data: sources of text, splits, checks of trustworthiness, and the LightningDataModule over them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mem.data.datamodule import TextDataModule

__all__ = ["TextDataModule"]


def __getattr__(name: str) -> Any:
    """Import the data module when it is used, so that the rest of the package does without Lightning."""
    if name == "TextDataModule":
        from lit_mem.data.datamodule import TextDataModule

        return TextDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
