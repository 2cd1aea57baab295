"""Measures that say in a line what they found of the model that a run ends with."""

from __future__ import annotations

import logging

import lightning.pytorch as pl

from lit_mem.callbacks.base import Measure

log = logging.getLogger(__name__)


class Verdict(Measure):
    """A measure with something to say at the end of a fit, of a validation by itself, or of a test.

    Attributes:
        verdict: the lines of the last pass, each with its level of `logging`.
        at_once: whether `validate` and `test` log them when the pass ends; False: the command calls `log_verdict`.
    """

    at_once: bool = True
    verdict: tuple[tuple[int, str], ...] = ()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget what was said of another model."""
        super().setup(trainer, pl_module, stage)
        self.verdict = ()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it of the model that training ends with."""
        self.log_verdict()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it where there is nothing but this validation."""
        if trainer.state.fn == "validate" and self.at_once:
            self.log_verdict()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say it of the test texts."""
        if self.at_once:
            self.log_verdict()

    def log_verdict(self) -> None:
        """Log the lines."""
        for level, line in self.verdict:
            log.log(level, "%s", line)
