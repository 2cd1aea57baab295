"""What the command line measures where the user has named no callbacks."""

from __future__ import annotations

from typing import Any, Final

from lightning.pytorch.cli import LightningArgumentParser

DEFAULT_CALLBACKS: Final = (
    "Perplexity",
    "MembershipInference",
    "Extraction",
    "Extractability",
    "Correlation",
    "Movers",
    "PerplexityDropWarning",
    "Stopwatch",
    "EpochTable",
    "MemorizationCheckpoint",
)
"""Classes of `lit_mem.callbacks`, each with its defaults."""

UNMEASURED: Final = (
    "Nothing measures memorization: trainer.callbacks holds no callback of lit_mem.callbacks that does. Leave "
    "trainer.callbacks out to have the default ones, or list them as configs/quickstart.yaml does."
)


BAREBONES: Final = "Nothing measures memorization: trainer.barebones is true, so nothing is logged."


def default_callbacks(parser: LightningArgumentParser, checkpointing: bool = True) -> Any:
    """The default callbacks as `trainer.callbacks` of a parsed configuration, in which they are saved as any others.

    Args:
        parser: of the subcommand.
        checkpointing: whether the trainer takes a callback that keeps checkpoints.
    """
    names = [name for name in DEFAULT_CALLBACKS if checkpointing or name != "MemorizationCheckpoint"]
    entries = [{"class_path": f"lit_mem.callbacks.{name}"} for name in names]
    return parser.parse_object({"trainer": {"callbacks": entries}}).trainer.callbacks
