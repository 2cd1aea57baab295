"""The parser of `fit`, `validate` and `test`, and of everything else that adds Lightning's classes."""

from __future__ import annotations

from lightning.pytorch.cli import LightningArgumentParser

from lit_mem.lightning.one_line import CommandParser, readable

__all__ = ["OneLineParser", "readable"]


class OneLineParser(CommandParser, LightningArgumentParser):
    """Lightning's parser, with errors in one line."""
