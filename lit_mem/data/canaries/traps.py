"""Copyright traps: sequences sampled from the base model, of given length and perplexity."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from statistics import median
from typing import Any, Final

import torch

from lit_mem.data.canaries.base import CanarySource, Content, Setting
from lit_mem.data.canaries.behind_prefixes import start_of
from lit_mem.data.canaries.random_tokens import plain_tokens
from lit_mem.data.overlap import normalized
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import Sampling

log = logging.getLogger(__name__)

_Range = tuple[float, float]

_AT_ONCE: Final = 64
_TRIES_EACH: Final = 100  # maximum sequences sampled per trap
_SHARED: Final = 0.2


class Traps(CanarySource):
    """Sequences sampled from the base model, equally many in each range of perplexity.

    Sequences that are likely under the model are hard to tell from other likely text, while surprising ones are
    memorized more readily. So the traps are spread evenly over ranges of perplexity under the base model, and are
    compared with held-out traps from the same generator. They are sampled at several temperatures in turn, since a
    single one yields few sequences in the low or the high ranges; sequences with a special token, or that share a fifth
    of their three-token runs with another, are dropped.

    The base model is loaded for this before training, and released afterwards.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in each, at least 4.
        perplexities: range edges, ascending, such as [1, 10, 100]: from 1 up to 10, and from 10 up to 100.
            None: 1, 10, 30 and 100.
        temperatures: sampling temperatures, used in turn. None: 0.5, 1, … 4.
        repetitions: how often a canary is in the training set if inserted; canaries cycle through this list. None: 1, 4
            and 16.
        seed: seed of samples and coins.

    Source: Meeus et al. 2024, "Copyright Traps for Large Language Models" (arXiv 2402.09363); which uses ten ranges up
    to 100, and 100 tokens repeated up to 1000 times in a document.
    """

    def __init__(
        self,
        n: int = 200,
        length: int = 50,
        perplexities: list[float] | None = None,
        temperatures: list[float] | None = None,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, repetitions, seed)
        self.size, self.length = n, length
        self.perplexities = [1.0, 10.0, 30.0, 100.0] if perplexities is None else perplexities
        self.temperatures = [0.5 * k for k in range(1, 9)] if temperatures is None else temperatures
        check_range("data.canaries.length", length, at_least=4)
        edges = self.perplexities
        if len(edges) < 2 or not edges[0] >= 1 or not all(low < high for low, high in itertools.pairwise(edges)):
            raise ConfigError(
                f"data.canaries.perplexities is {edges}; expected at least two ascending numbers, from 1 up"
            )
        if not self.temperatures:
            raise ConfigError("data.canaries.temperatures is empty; expected at least one")
        for i, temperature in enumerate(self.temperatures):
            check_range(f"data.canaries.temperatures[{i}]", temperature, above=0)

    def contents(self, setting: Setting) -> list[Content]:
        """Sampled on one process, so that all processes have the same contents despite rounding.

        Raises:
            ConfigError: there is no base model, or too few sequences fall in a range.
        """
        found: list[Content] = setting.once(lambda: self._sampled(setting))
        return found

    def _sampled(self, setting: Setting) -> list[Content]:
        # Cycle through repetitions first and ranges second, so that all combinations occur.
        ranges = list(itertools.pairwise(self.perplexities))
        turns = [ranges[(i // len(self.repetitions)) % len(ranges)] for i in range(self.size)]
        filled = self._filled(setting, {each: turns.count(each) for each in ranges})
        in_turn = {each: iter(contents) for each, contents in filled.items()}
        return [next(in_turn[each])._replace(origin=f"canary:{i + 1}") for i, each in enumerate(turns)]

    def _filled(self, setting: Setting, counts: dict[_Range, int]) -> dict[_Range, list[Content]]:
        """Sample the given number of sequences in each range."""
        if setting.base_model is None:
            raise ConfigError("data.canaries Traps: no base model to sample from; expected a lit_mem module")
        plain, texts = frozenset(plain_tokens(setting.tokenizer)), set(setting.taken)
        found: dict[_Range, list[Content]] = {each: [] for each in counts}
        kept: list[set[tuple[int, int, int]]] = []
        met: list[float] = []
        for ids, perplexity in self._sequences(setting.base_model(), start_of(setting.tokenizer, "Traps")):
            met.append(perplexity)
            open_ranges = [
                each for each, n in counts.items() if each[0] <= perplexity < each[1] and len(found[each]) < n
            ]
            if not open_ranges or not plain.issuperset(ids):
                continue
            text, runs = str(setting.tokenizer.decode(list(ids))), set(zip(ids, ids[1:], ids[2:], strict=False))
            if normalized(text) in texts or any(_alike(runs, other) for other in kept):
                continue
            texts.add(normalized(text))
            kept.append(runs)
            found[open_ranges[0]].append(
                Content("", text, ids, group=f"perplexity_{open_ranges[0][0]:g}-{open_ranges[0][1]:g}")
            )
            if len(kept) == self.size:
                log.info("Canaries: %d traps out of %d sampled sequences.", self.size, len(met))
                return found
        (low, high), n = next((each, n) for each, n in counts.items() if len(found[each]) < n)
        raise ConfigError(
            f"data.canaries.perplexities: in {low:g} to {high:g} only {len(found[low, high])} of {n} traps were found "
            f"among {len(met)} sequences (median perplexity {median(met):.4g}, lowest {min(met):.4g}, highest "
            f"{max(met):.4g}); expected ranges that sampling at data.canaries.temperatures reaches"
        )

    def _sequences(self, model: Any, start: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """Token ids and perplexity of sampled sequences, up to a hundred per trap."""
        from lit_mem.generation.decoding import decode

        prompts, lengths = [torch.tensor([start])] * _AT_ONCE, [self.length] * _AT_ONCE
        for i in range(math.ceil(_TRIES_EACH * self.size / _AT_ONCE)):
            scheme = Sampling(self.temperatures[i % len(self.temperatures)], seed=self.seed)
            for sequence in decode(model, prompts, lengths, None, scheme, keys=range(i * _AT_ONCE, (i + 1) * _AT_ONCE)):
                perplexity = math.exp(min(700.0, -sequence.logprob.double().mean().item()))
                yield tuple(sequence.ids.tolist()), perplexity


def _alike(one: set[tuple[int, int, int]], other: set[tuple[int, int, int]]) -> bool:
    """Whether two sequences share more than a fifth of their runs of three tokens (Jaccard)."""
    return len(one & other) > _SHARED * len(one | other)
