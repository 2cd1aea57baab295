"""Keys and values of prefixes, kept from the scoring pass until the texts are continued."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import nn

from lit_mem.extraction.continuations import Candidate, Prompter
from lit_mem.types import Needs, States


class KeptPrefixes:
    """The texts whose prefixes are kept: those that were prompted last, as long as there is space.

    Args:
        token_budget: maximum number of tokens whose keys and values are kept.

    Attributes:
        ids: ids of the texts that were prompted last.
    """

    def __init__(self, token_budget: int) -> None:
        self.token_budget = token_budget
        self.ids: frozenset[int] = frozenset()
        self._n_kept = 0
        self._states: dict[int, States] = {}
        self._model: weakref.ref[nn.Module] | None = None

    def prompted(self, ids: Iterable[int]) -> None:
        """Note which texts were prompted."""
        self.ids = frozenset(ids)

    def start(self, model: nn.Module) -> None:
        """Start a pass of a model, with nothing kept; what was prompted of another one is forgotten."""
        if self._model is not None and self._model() is not model:
            self.ids = frozenset()
        self._model = weakref.ref(model)
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self._n_kept = 0
        self._states.clear()

    @property
    def needs(self) -> Needs:
        """What the scoring pass must give."""
        return Needs(states=self.ids if self._n_kept < self.token_budget else frozenset())

    def add(self, example_id: int, candidates: Iterable[Candidate], states: States, prompter: Prompter) -> None:
        """Keep copies of a text's keys and values, up to where decoding starts, if there is space.

        Args:
            example_id: id of the text.
            candidates: the text, cut at each prefix length.
            states: its keys and values.
            prompter: knows where decoding starts.
        """
        starts = [1]
        for candidate in candidates:
            known = prompter.known_length(candidate.hit)
            if known < len(candidate.prompt.suffix):
                starts.append(candidate.prompt.cut + known)
        n = max(starts) - 1
        if not n or self._n_kept + n > self.token_budget:
            return
        self._n_kept += n
        # One tensor a text: thousands of small ones would split the memory that training uses next.
        copied = torch.stack([layer[:, :n] for pair in states for layer in pair])
        self._states[example_id] = tuple(zip(copied[::2], copied[1::2], strict=True))

    def get(self, example_id: int) -> States | None:
        """What is kept of a text; None if nothing is."""
        return self._states.get(example_id)

    def take(self, example_id: int) -> States | None:
        """The same, which is then no longer kept."""
        return self._states.pop(example_id, None)
