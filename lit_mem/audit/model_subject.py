"""A finished model, or one that something else trains, as the measures see it."""

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
    """A Hugging Face causal language model; with an adapter of peft's, its base is the reference.

    The reference scores each text once: its scores are kept, by example.

    Args:
        model: with or without an adapter of peft's.
        tokenizer: of the model.
        reference: a frozen model to compare with; "adapter_off": the model without its adapter; None: no reference.
        texts: token ids of the scored members (True) and held-out texts (False) by example id, for attacks that
            take their prefix from them.
        precision: the context in which models are called, such as a trainer's autocast.
        load: loads a causal language model by id or folder, and for None the base anew, for attacks that compare with
            further references; None: such attacks are rejected.
        groups: how many rows each person or document has; None: not known.
        everything: all members (True) and held-out texts (False), scored or not; None: not known.
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
        """Of the model."""
        return next(self.language_model.parameters()).device

    def lacks(self, *names: str) -> list[str]:
        """The reference, where there is none."""
        return [] if self.reference is not None else [name for name in names if name == "reference_context"]

    def score(self, batch: Batch, needs: Needs = Needs()) -> TokenScores:  # noqa: B008  (frozen)
        """One forward pass, and one of the reference where it is needed and has not scored these texts before."""
        with evaluation_mode(self.language_model), self._precision():
            scores = self._scorer(batch, needs)
        if not needs.reference or self.reference is None:
            return scores

        def of_reference(batch: Batch) -> TokenScores:
            if self.tuned_is_reference():
                return scores
            with self.reference_context(), self._precision():
                return (self._frozen or self._scorer)(batch)

        return scores.with_reference(*self._cache.scores(batch, of_reference))

    def prober(self, who: str) -> Prober:
        """Itself."""
        return self

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Those that were given."""
        if self._texts is None:
            raise ConfigError("an attack takes its prefix from the scored texts, and none were given; give the prefix")
        return self._texts[member]

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Further frozen models to compare with, loaded once."""
        key, load, device = tuple(references), self._load, self.device
        if load is None:
            raise ConfigError("further references cannot be loaded beside this model; leave that attack out")
        if key not in self._populations:
            self._populations[key] = Population(references, lambda name: load(name).to(device))
        return self._populations[key]

    def every_text(self) -> Iterable[str]:
        """Not known."""
        return ()

    def all_texts(self, member: bool) -> Collection[str] | None:
        """Those that were given."""
        return self._everything.get(member)

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference, in eval mode and without gradients."""
        copy = None if isinstance(self.reference, str) else self.reference
        return frozen_reference(self.language_model, copy)

    def tuned_is_reference(self) -> bool:
        """Known of an adapter that has not been trained."""
        return self.reference == "adapter_off" and changes_nothing(self.language_model)

    def forward_context(self) -> AbstractContextManager[None]:
        """That which was given."""
        return self._precision()

    def lockstep(self) -> AbstractContextManager[None]:
        """None: the model is whole in each process."""
        return nullcontext()

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Shows nothing."""
        return no_bar(what, total)

    def groups(self) -> Groups | None:
        """Those that were given."""
        return self._groups

    def privacy_claim(self) -> tuple[float, float] | None:
        """None."""
        return None
