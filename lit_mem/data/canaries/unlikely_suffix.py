"""Canaries that begin like what the base model writes, and go on as it would not."""

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

    A model that has memorized the suffix writes it when it is led there by the prefix, which it meets in ordinary use;
    so these canaries are for models whose outputs are released. The suffix is sampled behind the prefix at ascending
    temperatures, and the first kept whose perplexity under the base model, given the prefix, is `perplexity` or more.

    Args:
        n: how many canaries, in and out together.
        length: tokens in a suffix, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        perplexity: the least of a suffix, above 1.
        temperatures: at which suffixes are sampled, ascending. None: 1, 1.5, … 4.5; of these eight at most.
        repetitions: how often a canary stands in the training set if it is in; None: once, as the audit needs.
        seed: of contents and coins.

    Source: Meeus et al. 2025, "The Canary's Echo: Auditing Privacy Risks of LLM-Generated Synthetic Text" (arXiv
    2502.14921): there prefixes are of real records, which is why none is used here.
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
                f"data.canaries.temperatures is {self.temperatures}; expected at least one, each above the last"
            )
        check_range("data.canaries.temperatures[0]", self.temperatures[0], above=0)

    def secrets(self, base: Base) -> Draw:
        """Sampled behind the prefixes, at one temperature after the other."""
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
        """What to change where too few are found."""
        return "fewer, a shorter data.canaries.length, a lower data.canaries.perplexity or higher temperatures"


def _key(number: int, attempt: int) -> int:
    """Another one for each pair, and none that a prefix has been drawn with."""
    return -1 - (number * 64 + attempt)
