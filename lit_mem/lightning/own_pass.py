"""A pass that `Memorization` runs itself, over given texts, with the model that a module trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from lit_mem.audit.frozen import reference_in_training
from lit_mem.audit.loop import Audit
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.audit.passes import ScoredSets, observe
from lit_mem.audit.subject import Advance
from lit_mem.audit.subject_models import Audited, Reference, name_of, readable_length, reference_of
from lit_mem.data.checks import TrustReport
from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.example_sets import WholeTextsOf, extent, token_ids
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources.given import TwoSets
from lit_mem.data.sources.given_fields import Fields
from lit_mem.errors import ConfigError
from lit_mem.functional.planning import Scored
from lit_mem.guards import preserved_random_state
from lit_mem.lightning.found_model import model_in, tokenizer_in
from lit_mem.lightning.generation_bar import generation_bar
from lit_mem.lightning.own_files import describe
from lit_mem.lightning.sharded_strategy import ShardedBase
from lit_mem.models.limits import check_reads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnTexts:
    """Options of such passes; each is described at the option of `Memorization` with the same name.

    Raises:
        ConfigError: only one of the two sets is given.
    """

    members: Any
    heldout: Any
    model: nn.Module | str | None = None
    tokenizer: Any = None
    reference: Reference = "auto"
    max_length: int | None = None
    members_size: int | None = None
    heldout_size: int | None = None
    fields: Fields = None
    scoring_tokens: int = 2048
    check: bool = True
    seed: int = 0
    chunk: Chunk | Mapping[str, Any] | None = None
    show_groups: bool = False

    def __post_init__(self) -> None:
        if self.members is None or self.heldout is None:
            lacking, given = ("members", "heldout") if self.members is None else ("heldout", "members")
            raise ConfigError(f"Memorization.{lacking} is None, but {given} is given; expected texts in both")


class _TrainedSubject(ModelSubject):
    """A model in a custom LightningModule."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, **options: Any) -> None:
        super().__init__(**options, precision=trainer.precision_plugin.forward_context)
        self._trainer, self.name = trainer, type(module).__name__
        self.trust: TrustReport | None = None

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """A bar beside Lightning's own."""
        return generation_bar(self._trainer, what, total)


class OwnPass:
    """The passes of one fit, validate or test.

    Args:
        texts: options of the scored texts.

    Attributes:
        checking: whether the current pass is the one before training.
        subject: the model; None until `start`.
        scored: number of texts scored; None until `start`.
    """

    def __init__(self, texts: OwnTexts) -> None:
        self.texts, self.checking = texts, False
        self.subject: ModelSubject | None = None
        self.scored: Scored | None = None

    def start(self, trainer: pl.Trainer, module: pl.LightningModule, audit: Audit) -> ModelSubject:
        """Prepare texts, model, reference and measures once; every process must call it.

        Raises:
            ConfigError: an option is invalid.
            DataError: a row has an unexpected form.
            ModelError: a reference cannot be loaded.
        """
        if self.subject is not None:
            return self.subject
        texts, fit = self.texts, trainer.state.fn == "fit"
        model, tokenizer = model_in(module, texts.model), tokenizer_in(module, texts.tokenizer)
        length = texts.max_length or readable_length(model)
        options = DataOptions(
            max_length=length,
            add_eos=False,
            members_size=texts.members_size,
            heldout_size=texts.heldout_size,
            seed=texts.seed,
            check=texts.check,
            chunk=chunk_of(texts.chunk),
            show_groups=texts.show_groups,
        )
        with preserved_random_state():
            found = prepare(TwoSets(texts.members, texts.heldout, texts.fields), tokenizer, options)
            check_reads(model, type(module).__name__, *extent(found.members, found.heldout))
            if fit:
                started = trainer.global_step > 0
                frozen = reference_in_training(model, tokenizer, texts.reference, started, "Memorization")
            else:
                frozen = reference_of(texts.reference, Audited(model, name_of(model)), tokenizer)
            by_id = {True: token_ids(found.members), False: token_ids(found.heldout)}
            subject = _TrainedSubject(
                trainer,
                module,
                model=model,
                tokenizer=tokenizer,
                reference=frozen,
                texts=by_id,
                groups=found.texts.groups(),
                everything={True: WholeTextsOf(found.train), False: WholeTextsOf(found.heldout)},
            )
            subject.trust = found.texts.trust
            audit.open(subject, fit and trainer.global_step == 0)
        self._sets = ScoredSets([found.heldout, found.members], texts.scoring_tokens)
        self.scored = Scored(len(found.members), len(found.heldout), len(found.texts.train), found.of_heldout)
        log.info("Scored: %d members and %d held-out texts.", self.scored.members, self.scored.heldout)
        describe(trainer, model, texts, length, found, self.scored)
        self.subject = subject
        return subject

    def observe(self, audit: Audit) -> str | None:
        """Score all texts for all measures; returns the first non-finite loss of this process's texts, or None."""
        assert self.subject is not None
        with preserved_random_state():
            return observe(audit, self.subject, self._sets.batches(self.subject.device))

    def adapter(self) -> Any:
        """The subject, as `export_adapter` expects it, if its model has an adapter; else None."""
        subject = self.subject
        has_adapter = bool(getattr(getattr(subject, "language_model", None), "peft_config", None))
        return subject if has_adapter else None


def check_whole(trainer: pl.Trainer) -> None:
    """Reject a strategy that shards the weights of a model over devices.

    Raises:
        ConfigError: the strategy shards them.
    """
    strategy = trainer.strategy
    stage_3 = isinstance(strategy, DeepSpeedStrategy) and strategy.zero_stage_3
    if isinstance(strategy, FSDPStrategy | ModelParallelStrategy | ShardedBase) or stage_3:
        raise ConfigError(
            f"trainer.strategy is {type(strategy).__name__}{' stage 3' if stage_3 else ''}, which shards the weights "
            "over devices, but Memorization scores texts with whole weights; expected ddp, or an audit of the saved "
            "model (lit_mem.audit)"
        )
