"""Data: sources of text, splits, checks of trustworthiness, and the LightningDataModule over them."""

from lit_mem.data.datamodule import TextDataModule

__all__ = ["TextDataModule"]
