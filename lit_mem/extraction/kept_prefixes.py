"""Keys and values of prefixes, kept from the scoring pass until the texts are continued."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

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

    def prompted(self, ids: Iterable[int]) -> None:
        """Note which texts were prompted."""
        self.ids = frozenset(ids)

    def begin(self) -> None:
        """Start a pass with nothing kept."""
        self._n_kept = 0

    @property
    def needs(self) -> Needs:
        """What the scoring pass must give."""
        return Needs(states=self.ids if self._n_kept < self.token_budget else frozenset())

    def added(self, candidates: list[Candidate], states: States, prompter: Prompter) -> list[Candidate]:
        """Candidates of one text with copies of its keys and values, up to where decoding starts."""
        starts = []
        for candidate in candidates:
            known = prompter.known_length(candidate.hit)
            if known < len(candidate.prompt.suffix):
                starts.append(candidate.prompt.cut + known)
        n = max(starts, default=1) - 1
        if not n or self._n_kept + n > self.token_budget:
            return candidates
        self._n_kept += n
        copied = tuple((keys[:, :n].clone(), values[:, :n].clone()) for keys, values in states)
        return [replace(candidate, states=copied) for candidate in candidates]
