"""Canaries with a likely prefix and an unlikely suffix under the base model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from lit_mem.data.canaries.behind_prefixes import Base, BehindPrefixes, Draw, Ids
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import Sampling


class UnlikelySuffix(BehindPrefixes):
    """An in-distribution prefix and a suffix of high perplexity, both sampled from the base model.

    A model that has memorized the suffix may generate it after the prefix, which is likely in ordinary use; so these
    canaries are for models whose outputs are released. The suffix is sampled after the prefix at ascending
    temperatures; the first one whose perplexity under the base model, given the prefix, is at least `perplexity` is
    kept.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in a suffix, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        perplexity: minimum perplexity of a suffix, above 1.
        temperatures: sampling temperatures of suffixes, ascending. None: 1, 1.5, … 4.5; at most eight.
        repetitions: how often a canary is in the training set if inserted; None: once, as the audit requires.
        seed: seed of contents and coins.

    Source: Meeus et al. 2025, "The Canary's Echo: Auditing Privacy Risks of LLM-Generated Synthetic Text" (arXiv
    2502.14921): its prefixes are from real records; here they are sampled, so that no data is revealed.
    """

    def __init__(
        self,
        n: int = 500,
        length: int = 16,
        prefix_length: int = 16,
        perplexity: float = 100.0,
        temperatures: list[float] | None = None,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, length, prefix_length, repetitions, seed)
        check_range("data.canaries.perplexity", perplexity, above=1)
        self.perplexity = perplexity
        self.temperatures = [1 + 0.5 * k for k in range(8)] if temperatures is None else temperatures
        if not self.temperatures or not all(low < high for low, high in itertools.pairwise(self.temperatures)):
            raise ConfigError(
                f"data.canaries.temperatures is {self.temperatures}; expected at least one, in ascending order"
            )
        check_range("data.canaries.temperatures[0]", self.temperatures[0], above=0)

    def secrets(self, base: Base) -> Draw:
        """Sample after the prefixes, at each temperature in turn."""
        from lit_mem.generation.decoding import decode

        spelled = frozenset(base.spelled)

        def draw(prefixes: Sequence[Ids], numbers: Sequence[int], attempt: int) -> list[Ids | None]:
            scheme = Sampling(self.temperatures[attempt % len(self.temperatures)], seed=self.seed + 1)
            prompts = [torch.tensor([base.start, *prefix]) for prefix in prefixes]
            keys = [_key(number, attempt) for number in numbers]
            found: list[Ids | None] = []
            for one in decode(base.model, prompts, [self.length] * len(prompts), None, scheme, keys=keys):
                ids = tuple(one.ids.tolist())
                unlikely = one.logprob.double().mean().item() <= -math.log(self.perplexity)
                found.append(ids if unlikely and spelled.issuperset(ids) else None)
            return found

        return draw

    def remedy(self) -> str:
        """What to change if too few are found."""
        return "a lower n, a shorter data.canaries.length, a lower data.canaries.perplexity or higher temperatures"


def _key(number: int, attempt: int) -> int:
    """A distinct key for each pair, different from all keys of prefixes."""
    return -1 - (number * 64 + attempt)
