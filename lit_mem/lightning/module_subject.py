"""A LightningModule as the subject of measures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from lit_mem.audit.subject import Advance
from lit_mem.data.groups import Groups
from lit_mem.errors import ConfigError, LitMemError
from lit_mem.functional.ends import end_tokens
from lit_mem.lightning.generation_bar import generation_bar
from lit_mem.types import Batch, Needs, Prober, TokenScores


class ModuleSubject:
    """A `lit_mem.audit.subject.Subject` over a LightningModule and its trainer.

    Args:
        trainer: its precision also applies to further passes.
        module: has `tokenizer`, `language_model` and `reference_context` if a measure generates
            (`lit_mem.types.MemorizationModule`), and `score` if an attack needs further forward passes.
    """

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._trainer, self._module = trainer, module
        self.name = type(module).__name__
        self.ends = end_tokens(module)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self._module.tokenizer

    @property
    def language_model(self) -> nn.Module:
        """The model being tuned."""
        model: nn.Module = self._module.language_model  # type: ignore[assignment]
        return model

    def lacks(self, *names: str) -> list[str]:
        """Those that the module does not have."""
        return [name for name in names if not _has(self._module, name)]

    def prober(self, who: str) -> Prober:
        """The interface for attacks that need further forward passes."""
        if lacking := self.lacks("score", "tokenizer", "language_model"):
            raise ConfigError(
                f"{who} needs further forward passes, so {self.name} must have {lacking[0]} (see lit_mem.types.Prober)"
            )
        return _ModuleProber(self._trainer, self._module, who)

    def every_text(self) -> Iterable[str]:
        """All texts of the data module, if it gives them."""
        texts: Callable[[], Iterable[str]] = getattr(getattr(self._trainer, "datamodule", None), "every_text", tuple)
        return texts()

    def all_texts(self, member: bool) -> Collection[str] | None:
        """The texts of the data module, if it gives them."""
        data = getattr(self._trainer, "datamodule", None)
        given: Callable[[bool], Collection[str] | None] = getattr(data, "all_texts", lambda member: None)
        return given(member)

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The module's."""
        context: AbstractContextManager[nn.Module] = self._module.reference_context()  # type: ignore[operator]
        return context

    def tuned_is_reference(self) -> bool:
        """As reported by the module; False without a report."""
        known: Callable[[], bool] = getattr(self._module, "tuned_is_reference", lambda: False)
        return known()

    def forward_context(self) -> AbstractContextManager[None]:
        """The trainer's precision: callbacks run without autocast."""
        return self._trainer.precision_plugin.forward_context()

    def lockstep(self) -> AbstractContextManager[None]:
        """The module's (see `lit_mem.sharding.lockstep.Lockstep`), if it has one."""
        context: AbstractContextManager[None] = getattr(self._module, "lockstep", nullcontext)()
        return context

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """A bar beside Lightning's own."""
        return generation_bar(self._trainer, what, total)

    def groups(self) -> Groups | None:
        """The groups of the data module, if it gives them."""
        groups: Callable[[], Groups | None] = getattr(
            getattr(self._trainer, "datamodule", None), "groups", lambda: None
        )
        return groups()

    def privacy_claim(self) -> tuple[float, float] | None:
        """The module's, if it trains privately."""
        claim: Callable[[], tuple[float, float] | None] = getattr(self._module, "privacy_claim", lambda: None)
        return claim()


class _ModuleProber(ModuleSubject):
    """A `lit_mem.types.Prober` for one attack, which is named in messages."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, who: str) -> None:
        super().__init__(trainer, module)
        self._who = who

    def score(self, batch: Batch) -> TokenScores:
        """Run one more forward pass of the tuned model."""
        with self.forward_context():
            scores: TokenScores = self._module.score(batch, Needs())  # type: ignore[operator]
        return scores

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Token ids of all validated members, or held-out texts, by example id."""
        data = self._trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(data, "texts"):
            raise ConfigError(
                f"{self._who} takes its prefix from the data module's texts, but {type(data).__name__} has no "
                "texts(member); set the attack's prefix"
            )
        texts: Mapping[int, Tensor] = data.texts(member)
        return texts

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Further frozen models to compare with."""
        if not hasattr(self._module, "population"):
            raise ConfigError(f"{self._who} needs further references, but {self.name} cannot load them")
        population: Callable[[Batch], Sequence[Tensor]] = self._module.population(references)  # type: ignore[operator]
        return population


def _has(module: Any, name: str) -> bool:
    try:
        return hasattr(module, name)
    except LitMemError:  # the model is not built yet
        return True
