"""A LightningModule that builds a model and scores every validation example with it and with a frozen reference."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.errors import ModelError
from lit_mem.lightning.heldout import HeldOutLoss
from lit_mem.lightning.learning import Learning
from lit_mem.lightning.strategies import place_of, reject_strategies
from lit_mem.lightning.surroundings import check_texts, log_inner_ends, needs_of, setting_of
from lit_mem.models.added_tokens import has_tokenizer
from lit_mem.models.base_loader import BaseLoader, base_of, check_reference
from lit_mem.models.base_models import Quantization
from lit_mem.models.building import Built, build, log_sizes
from lit_mem.models.hub import load_tokenizer
from lit_mem.models.population import Population
from lit_mem.models.reference_model import Setting
from lit_mem.models.scored import ScoredModel
from lit_mem.scoring.reference_scores import Reference, ReferenceCache
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.sharding.lockstep import Lockstep
from lit_mem.types import Batch, Needs, TokenScores


class ScoringModule(pl.LightningModule):
    """Validates and tests; see `lit_mem.lightning.module.CausalLM`, which also trains.

    Args:
        model_id: base model; None: that of the adapter, or the default.
        revision: branch, tag or commit on the hub.
        adapter: the adapter to train on the base.
        adapter_path: folder of an adapter saved by peft; it replaces `adapter`.
        reference: the frozen reference model of membership inference.
        dtype: precision in which the base is loaded.
        quantization: load the base in 4 or 8 bits.
        attention: attention kernel; None: the library's default.

    Attributes:
        reference_cache: the reference's scores by example.
        base_fingerprint: `models.fingerprint.fingerprint` of the base; {} before the model is built.
        lockstep: keeps ranks in step if the base is sharded.
        learning: compares the losses with those before training.
    """

    def __init__(
        self,
        model_id: str | None,
        revision: str | None,
        adapter: Adapter,
        adapter_path: str | None,
        reference: Reference,
        dtype: str,
        quantization: Quantization,
        attention: str | None,
    ) -> None:
        super().__init__()
        check_reference(reference, model_id)
        self.model_id, self.revision = base_of(model_id, revision, adapter_path)
        self.adapter, self.reference = adapter, reference
        self.adapter_path = None if adapter_path is None else str(adapter_path)  # a Path in Python
        self.dtype_name, self.quantization, self.attention = dtype, quantization, attention
        self.reference_cache = ReferenceCache()
        self.base_fingerprint: dict[str, str] = {}
        self.lockstep = Lockstep()
        self.learning = Learning()
        self._bases = BaseLoader(self.model_id, self.revision, dtype, quantization, attention, self.lockstep)
        self._model: nn.Module | None = None
        self._scored_model: ScoredModel | None = None
        self._populations: dict[tuple[str, ...], Population] = {}
        self._heldout = HeldOutLoss(self.learning)

    # -- building ------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer beside the adapter, or else that of the base model."""
        if self.adapter_path is not None and has_tokenizer(self.adapter_path):
            return load_tokenizer(self.adapter_path, option="model.adapter_path")
        return load_tokenizer(self.model_id, self.revision)

    @property
    def language_model(self) -> nn.Module:
        """The model being tuned, with its adapter."""
        if self._model is None:
            raise ModelError("the model is not built yet; call configure_model() first")
        return self._model

    def configure_model(self) -> None:
        """Load the base, add the adapter, and check the reference.

        Lightning calls this before every fit, validate and test; a second call does nothing.
        """
        if self._model is not None:
            return
        trainer = self._trainer
        reject_strategies(trainer, self.quantization, self.adapter)
        built = build(
            self._bases,
            place_of(trainer),
            self.adapter if self.adapter_path is None else self.adapter_path,
            self.reference,
            check_texts(trainer),
            lambda: self.tokenizer.vocab_size,
        )
        self._model, self.base_fingerprint = built.model, built.fingerprint
        self._scored_model = ScoredModel(
            built.model, built.reference, self.reference_cache, self.reference.cache, self.lockstep
        )
        self._scorer: TokenScorer = self._scored_model.scorer
        log_inner_ends(self)
        self._prepare(built)
        name = self.model_id + (f" with the adapter {self.adapter_path}" if self.adapter_path else "")
        log_sizes(built.model, name, built.reference.name)

    def _prepare(self, built: Built) -> None:
        """Hook that runs once, when the model is built."""

    def fresh_base(self) -> nn.Module:
        """A new copy of the base, untuned and in eval mode; the model in training is unchanged."""
        return self._bases.fresh(place_of(self._trainer))

    def merged(self, adapter_path: str) -> Any:
        """A new copy of the base with an exported adapter merged into it: one plain model, on the CPU.

        The model in training is unchanged: merging and unmerging would round its weights.
        """
        return self._bases.merged(adapter_path)

    def population(self, references: Sequence[str]) -> Population:
        """Further frozen models to compare with: adapters of the same base, or whole models; loaded once per list."""
        key, place = tuple(references), place_of(self._trainer)
        if key not in self._populations:

            def load(other: str | None) -> nn.Module:
                base: nn.Module = self._bases.load(place, other, "references" if other else "model_id")
                return base.to(self.device)

            self._populations[key] = Population(references, load)
        return self._populations[key]

    # -- scoring -------------------------------------------------------------------------------------------

    @property
    def _scored(self) -> ScoredModel:
        if self._scored_model is None:
            raise ModelError("the model is not built yet; call configure_model() first")
        return self._scored_model

    @property
    def _setting(self) -> Setting:
        return setting_of(self, convert=self.quantization == "none")

    def score(self, batch: Batch, needs: Needs | None = None) -> TokenScores:
        """Score a batch with the tuned model, and with the reference if a callback reads it.

        Args:
            batch: the examples.
            needs: optional scores to compute; None: those that the callbacks read.
        """
        needs = needs_of(self._trainer) if needs is None else needs
        return self._scored.score(batch, needs, self._setting, self.global_step)

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference as a callable model; in eval mode, without gradients."""
        return self._scored.reference.context(self._setting)

    def tuned_is_reference(self) -> bool:
        """Whether the tuned model still gives bit-identical scores to the reference, as before the first step.

        Computations with both can then be done once. It may be False although they are identical.
        """
        return self._scored_model is not None and self._scored_model.tuned_is_reference(self.global_step)

    # -- validation ----------------------------------------------------------------------------------------

    # Lightning passes any return value of a step to the callbacks; its annotation lists only tensors and mappings.
    def validation_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> TokenScores:
        """Score a batch of members or non-members in one forward pass."""
        scores = self.score(batch)
        self._heldout.take(scores, batch)
        return scores

    def test_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> TokenScores:
        """Like `validation_step`, on the test set."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_start(self) -> None:
        """Start a new pass."""
        self._heldout.begin()

    def on_test_start(self) -> None:
        """Start a new pass."""
        self.on_validation_start()

    def on_validation_end(self) -> None:
        """Record the validated step."""
        if not self.trainer.sanity_checking:
            self._heldout.validated(self.trainer)

    def on_validation_epoch_end(self) -> None:
        """Log the token-weighted held-out loss."""
        self._heldout.end(self)

    def on_test_epoch_end(self) -> None:
        """Log the token-weighted loss of the test set."""
        self._heldout.end(self)

    def heldout_loss(self) -> dict[str, float]:
        """The held-out loss of the current pass, `val/loss` or `test/loss`; {} without texts. On every rank."""
        return self._heldout.metrics(bool(self.trainer.testing))
