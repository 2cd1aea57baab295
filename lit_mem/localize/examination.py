"""Base class for examining a finished run: selects its texts and loads a checkpoint's weights."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.data.encoding import Encoded
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.module import CausalLM
from lit_mem.localize.run_folder import load_weights
from lit_mem.types import Needs


class Examination(Callback):
    """Examines a module during validation.

    Args:
        checkpoint: checkpoint whose weights are examined.
        rows: number of members and of held-out texts to score, chosen at random; None: all that the run scored.
    """

    needs: Needs = Needs()

    def __init__(self, checkpoint: Path, rows: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.rows = rows

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Select the texts to score."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, TextDataModule)
        data.canaries = []  # canaries belong to neither set
        if self.rows is not None:
            data.members, data.heldout = (_some(examples, self.rows) for examples in (data.members, data.heldout))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the checkpoint's weights."""
        assert isinstance(pl_module, CausalLM)
        load_weights(pl_module, self.checkpoint)


def _some(examples: Sequence[Encoded], n: int) -> list[Encoded]:
    chosen = random.Random(0).sample(range(len(examples)), min(n, len(examples)))
    return [examples[i] for i in sorted(chosen)]
