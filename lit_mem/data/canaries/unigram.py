"""Canaries whose secret consists of tokens that are rare under the base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from lit_mem.data.canaries.base import dice
from lit_mem.data.canaries.behind_prefixes import AT_ONCE, Base, BehindPrefixes, Draw, Ids
from lit_mem.errors import check_range
from lit_mem.types import Sampling

_LENGTH: Final = 32  # tokens per text that frequencies are estimated from
_SOME: Final = 8  # of these texts per batch


class Unigram(BehindPrefixes):
    """A prefix sampled from the base model, followed by tokens that are rare under the base model.

    Each token of a secret is drawn independently and uniformly from the rarest share of the vocabulary. Rarity is
    estimated from the base model, not from the data: the probability as next token, averaged over all positions of
    texts sampled from the model itself. So the secrets do not depend on the data. Tokens that do not round-trip through
    their text are excluded.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in a secret, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        rarest: share of the vocabulary to draw from, in (0, 1].
        repetitions: how often a canary is in the training set if inserted; None: once, as the audit requires.
        seed: seed of contents and coins.

    Source: Panda et al. 2025, "Privacy Auditing of Large Language Models" (arXiv 2503.06808), whose unigram canaries
    end in one token of the lowest frequencies in the training data, after a prefix of a training example.
    """

    def __init__(
        self,
        n: int = 500,
        length: int = 8,
        prefix_length: int = 16,
        rarest: float = 0.1,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, length, prefix_length, repetitions, seed)
        check_range("data.canaries.rarest", rarest, above=0, at_most=1)
        self.rarest = rarest

    def secrets(self, base: Base) -> Draw:
        """Draw from the rarest tokens."""
        rarest = self.rarest_tokens(base)

        def draw(prefixes: Sequence[Ids], numbers: Sequence[int], attempt: int) -> list[Ids]:
            drawn = [dice(self.seed, "secret", number, attempt) for number in numbers]
            return [tuple(rarest[one.randrange(len(rarest))] for _ in range(self.length)) for one in drawn]

        return draw

    def rarest_tokens(self, base: Base) -> list[int]:
        """The tokens that secrets are drawn from, rarest first."""
        spelled = torch.tensor(base.spelled)
        frequency = frequencies(base, self.seed)[spelled]
        return spelled[frequency.argsort(stable=True)[: how_many(self.rarest, len(spelled))]].tolist()


def how_many(share: float, n: int) -> int:
    """A share of n tokens as a count, at least one."""
    return max(1, round(share * n))


@torch.no_grad()
def frequencies(base: Base, seed: int) -> Tensor:
    """(V,) float64 on the CPU, summing to 1: the base model's frequency of each token.

    The mean of its next-token probabilities over all positions of 64 texts of 32 tokens sampled at temperature 1, which
    has less noise than token counts.
    """
    from lit_mem.generation.decoding import decode

    start = torch.tensor([base.start])
    sampled = decode(base.model, [start] * AT_ONCE, [_LENGTH] * AT_ONCE, None, Sampling(seed=seed))
    device = next(base.model.parameters()).device
    texts = torch.stack([torch.cat([start, one.ids]) for one in sampled]).to(device)  # no text ends early
    found = [
        base.model(input_ids=some).logits[:, :-1].float().softmax(-1).sum((0, 1)) for some in torch.split(texts, _SOME)
    ]
    total = torch.stack(found).double().sum(0).cpu()
    return total / total.sum()
