"""A finished model, or one that something else trains, as the measures see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from lit_mem.adapters.base import frozen_reference
from lit_mem.audit.subject import Advance
from lit_mem.errors import ConfigError
from lit_mem.extraction.continuations import no_bar
from lit_mem.functional.ends import end_tokens
from lit_mem.guards import evaluation_mode
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Batch, Needs, Prober, TokenScores


class ModelSubject:
    """A Hugging Face causal language model; with an adapter of peft's, its base is the reference.

    Args:
        model: with or without an adapter of peft's.
        tokenizer: of the model.
        reference: a frozen model to compare with; None: the model with its adapter off, and without an adapter none.
        texts: token ids of the scored members (True) and held-out texts (False) by example id, for attacks that
            take their prefix from them.
    """

    name = "the model"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        reference: nn.Module | None = None,
        texts: Mapping[bool, Mapping[int, Tensor]] | None = None,
    ) -> None:
        self.language_model, self.tokenizer = model, tokenizer
        self._reference, self._texts = reference, texts
        self._scorer = TokenScorer(model)
        self._frozen = None if reference is None else TokenScorer(reference)
        self.ends = end_tokens(self)

    @property
    def has_reference(self) -> bool:
        """Whether there is a model to compare with."""
        return self._frozen is not None or hasattr(self.language_model, "peft_config")

    def lacks(self, *names: str) -> list[str]:
        """The reference, where there is none."""
        return [] if self.has_reference else [name for name in names if name == "reference_context"]

    def score(self, batch: Batch, needs: Needs = Needs()) -> TokenScores:  # noqa: B008  (frozen)
        """One forward pass, and one of the reference where it is needed and there is one."""
        with evaluation_mode(self.language_model):
            scores = self._scorer(batch, needs)
        if not needs.reference or not self.has_reference:
            return scores
        with self.reference_context():
            base = (self._frozen or self._scorer)(batch)
        return scores.with_reference(base.logprob, base.hit)

    def prober(self, who: str) -> Prober:
        """Itself."""
        return self

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Those that were given."""
        if self._texts is None:
            raise ConfigError("an attack takes its prefix from the scored texts, and none were given; give the prefix")
        return self._texts[member]

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """None can be loaded here."""
        raise ConfigError("further references cannot be loaded beside a finished model; leave that attack out")

    def every_text(self) -> Iterable[str]:
        """Not known."""
        return ()

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference, in eval mode and without gradients."""
        return frozen_reference(self.language_model, self._reference)

    def tuned_is_reference(self) -> bool:
        """Not known."""
        return False

    def forward_context(self) -> AbstractContextManager[None]:
        """None of its own."""
        return nullcontext()

    def lockstep(self) -> AbstractContextManager[None]:
        """None: the model is whole in each process."""
        return nullcontext()

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Shows nothing."""
        return no_bar(what, total)

    def privacy_claim(self) -> tuple[float, float] | None:
        """None."""
        return None
