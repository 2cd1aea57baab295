"""A Hugging Face model as the subject of measures: finished, or being trained elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lit_mem.adapters.base import changes_nothing, frozen_reference
from lit_mem.audit.subject import Advance
from lit_mem.data.groups import Groups
from lit_mem.errors import ConfigError
from lit_mem.extraction.continuations import no_bar
from lit_mem.functional.ends import end_tokens
from lit_mem.guards import evaluation_mode
from lit_mem.models.population import Population
from lit_mem.scoring.reference_scores import ReferenceCache
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Batch, Needs, Prober, TokenScores


class ModelSubject:
    """A Hugging Face causal language model; if it has a peft adapter, its base can be the reference.

    The reference scores each text once; its scores are cached by example.

    Args:
        model: the model, with or without a peft adapter.
        tokenizer: its tokenizer.
        reference: a frozen model to compare with; "adapter_off": the model without its adapter; None: no reference.
        texts: token ids of the scored members (True) and held-out texts (False) by example id, for attacks that
            take their prefix from them.
        precision: context in which models are called, such as a trainer's autocast.
        load: loads a causal language model by id or folder, or a new copy of the base for None, for attacks with
            further references; None: such attacks are rejected.
        groups: number of rows of each person or document; None if not known.
        everything: all members (True) and held-out texts (False), scored or not; None if not known.
    """

    name = "the model"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        reference: nn.Module | Literal["adapter_off"] | None = None,
        texts: Mapping[bool, Mapping[int, Tensor]] | None = None,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        load: Callable[[str | None], nn.Module] | None = None,
        groups: Groups | None = None,
        everything: Mapping[bool, Collection[str] | None] | None = None,
    ) -> None:
        self.language_model, self.tokenizer = model, tokenizer
        self.reference, self._texts, self._load, self._precision = reference, texts, load, precision
        self._groups, self._everything = groups, everything or {}
        self._cache = ReferenceCache()
        with precision():
            self._scorer = TokenScorer(model)
            self._frozen = TokenScorer(reference) if isinstance(reference, nn.Module) else None
        self._populations: dict[tuple[str, ...], Population] = {}
        self.ends = end_tokens(self)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.language_model.parameters()).device

    def lacks(self, *names: str) -> list[str]:
        """["reference_context"] if there is no reference."""
        return [] if self.reference is not None else [name for name in names if name == "reference_context"]

    def score(self, batch: Batch, needs: Needs = Needs()) -> TokenScores:  # noqa: B008  (frozen)
        """One forward pass, and one of the reference if needed and these texts are not cached."""
        same = self.tuned_is_reference()  # then the adapter adds exactly nothing, and need not be computed
        with self.reference_context() if same else evaluation_mode(self.language_model), self._precision():
            scores = self._scorer(batch, needs)
        if not needs.reference or self.reference is None:
            return scores

        def of_reference(batch: Batch) -> TokenScores:
            if same:
                return scores
            with self.reference_context(), self._precision():
                return (self._frozen or self._scorer)(batch)

        return scores.with_reference(*self._cache.scores(batch, of_reference))

    def prober(self, who: str) -> Prober:
        """Itself."""
        return self

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """The texts passed to the constructor."""
        if self._texts is None:
            raise ConfigError("an attack takes its prefix from the scored texts, but none were given; set its prefix")
        return self._texts[member]

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Further frozen models to compare with, loaded once."""
        key, load, device = tuple(references), self._load, self.device
        if load is None:
            raise ConfigError("further references cannot be loaded beside this model; remove that attack")
        if key not in self._populations:
            self._populations[key] = Population(references, lambda name: load(name).to(device))
        return self._populations[key]

    def every_text(self) -> Iterable[str]:
        """Unknown."""
        return ()

    def all_texts(self, member: bool) -> Collection[str] | None:
        """The texts passed to the constructor."""
        return self._everything.get(member)

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference, in eval mode and without gradients."""
        copy = None if isinstance(self.reference, str) else self.reference
        return frozen_reference(self.language_model, copy)

    def tuned_is_reference(self) -> bool:
        """True for an untrained adapter that is turned off for the reference."""
        return self.reference == "adapter_off" and changes_nothing(self.language_model)

    def forward_context(self) -> AbstractContextManager[None]:
        """The precision passed to the constructor."""
        return self._precision()

    def lockstep(self) -> AbstractContextManager[None]:
        """A null context: the model is whole in each process."""
        return nullcontext()

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """A null progress bar."""
        return no_bar(what, total)

    def groups(self) -> Groups | None:
        """The groups passed to the constructor."""
        return self._groups

    def privacy_claim(self) -> tuple[float, float] | None:
        """None."""
        return None
