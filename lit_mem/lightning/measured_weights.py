"""Check that the weights about to be saved are those that were measured."""

from __future__ import annotations

from typing import Any, Final

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_mem.errors import ConfigError
from lit_mem.lightning.driven import passes_after_epochs
from lit_mem.lightning.foreign_callbacks import from_here
from lit_mem.lightning.of_trainer import callbacks_of

_BITS: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def digest(module: nn.Module) -> dict[str, int]:
    """For each trained parameter, the sum of its elements' bit patterns, modulo 2^64.

    Exact and independent of the order of summation; computed on the device, without copying the parameter.
    """
    trained = {name: _bits(p) for name, p in module.named_parameters() if p.requires_grad and p.numel()}
    if not trained:
        return {}
    device = next(iter(trained.values())).device
    sums = torch.stack([bits.sum(dtype=torch.int64).to(device) for bits in trained.values()])
    return dict(zip(trained, sums.tolist(), strict=True))


def _bits(parameter: Tensor) -> Tensor:
    whole = parameter.detach()
    local: Tensor = whole.to_local() if hasattr(whole, "to_local") else whole
    return local.view(_BITS[local.element_size()])


class MeasuredWeights:
    """Compares the trained weights of the first scored batch of a validation with those at a later time.

    A callback that swaps weights for the validation (an average, for example) would make the saved weights differ from
    the measured ones. Such callbacks cannot be listed by name; a digest of the weights detects them.
    """

    def __init__(self) -> None:
        self._digest: dict[str, int] | None = None
        self._step = -1

    def reset(self) -> None:
        """Reset for a new validation."""
        self._digest, self._step = None, -1

    def note(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Digest the weights that score the first batch; later batches change nothing."""
        if self._digest is None:
            self._digest, self._step = digest(module), trainer.global_step

    def changed(self, trainer: pl.Trainer, module: pl.LightningModule) -> str | None:
        """Name of the first trained parameter that differs although no step was taken; None if all are the same.

        None also if nothing was measured at this step.
        """
        if self._digest is None or self._step != trainer.global_step:
            return None
        before, now = self._digest, digest(module)
        return next((name for name in sorted(now.keys() | before) if now.get(name) != before.get(name)), None)

    def check(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Reject a run in which the weights to be saved differ from the measured ones.

        Raises:
            ConfigError: the weights differ; the message names callbacks that may have changed them.
        """
        name = self.changed(trainer, module)
        # Weights may differ on a single rank, and none may hang.
        if trainer.strategy.reduce_boolean_decision(name is not None, all=False):
            name = name or "a weight of another process"
            raise ConfigError(
                f"the measured weights are not those that would be saved: {name} changed during the "
                f"validation after step {trainer.global_step}, without training; a callback swaps weights "
                f"({suspects(trainer)}): remove it from trainer.callbacks"
            )


def suspects(trainer: pl.Trainer) -> str:
    """The third-party callbacks, for a message."""
    names = [type(callback).__name__ for callback in callbacks_of(trainer) if not from_here(callback)]
    return f"one of {', '.join(names)}" if names else "or the module itself does"


class SavesWhatWasMeasured(pl.Callback):
    """Mixin for a callback that saves weights after a validation: ends a fit that would save other weights.

    Attributes:
        measured: digest of the weights that scored the first batch.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.measured = MeasuredWeights()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset for a new validation."""
        super().on_validation_start(trainer, pl_module)
        self.measured.reset()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Digest the weights that are measured."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.measured.note(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the other callbacks, check that scoring, generation and saving use the same weights.

        Raises:
            ConfigError: a callback has swapped the weights.
        """
        super().on_validation_epoch_end(trainer, pl_module)
        self.measured.check(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, if training epochs end with a pass instead of a validation."""
        super().on_train_epoch_end(trainer, pl_module)
        if passes_after_epochs(trainer):
            self.on_validation_end(trainer, pl_module)
