"""What an attack that asks the model further questions is given to ask with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from lit_mem.errors import ConfigError
from lit_mem.types import Batch, Needs, TokenScores


class ModuleProber:
    """A `lit_mem.types.Prober` over a LightningModule and its data module.

    Args:
        trainer: its precision holds for further passes too.
        module: the module being validated.
        who: asks, for messages.

    Raises:
        ConfigError: the module cannot be asked.
    """

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, who: str) -> None:
        for name in ("score", "tokenizer", "language_model"):
            if not hasattr(module, name):
                raise ConfigError(
                    f"{who} asks the model more than the scoring pass told, so {type(module).__name__} must have "
                    f"{name} (see lit_mem.types.Prober)"
                )
        self._trainer, self._module, self._who = trainer, module, who

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self._module.tokenizer

    @property
    def language_model(self) -> nn.Module:
        """The model being tuned."""
        model: nn.Module = self._module.language_model  # type: ignore[assignment]
        return model

    def score(self, batch: Batch) -> TokenScores:
        """One more forward pass of the tuned model."""
        with self._trainer.precision_plugin.forward_context():  # callbacks get no autocast by themselves
            scores: TokenScores = self._module.score(batch, Needs())  # type: ignore[operator]
        return scores

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Token ids of all validated members, or held-out texts, by example id."""
        data = self._trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "texts"):
            raise ConfigError(
                f"{self._who} takes its prefix from the data module's texts; {type(data).__name__} has no "
                "texts(member), so give the prefix yourself"
            )
        texts: Mapping[int, Tensor] = data.texts(member)
        return texts

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Further frozen models to compare with."""
        if not hasattr(self._module, "population"):
            raise ConfigError(f"{self._who} needs further references; {type(self._module).__name__} cannot load them")
        population: Callable[[Batch], Sequence[Tensor]] = self._module.population(references)  # type: ignore[operator]
        return population
