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


def default_callbacks(parser: LightningArgumentParser) -> Any:
    """The default callbacks as `trainer.callbacks` of a parsed configuration, in which they are saved as any others."""
    entries = [{"class_path": f"lit_mem.callbacks.{name}"} for name in DEFAULT_CALLBACKS]
    return parser.parse_object({"trainer": {"callbacks": entries}}).trainer.callbacks
