"""Canaries whose secret consists of token pairs that are unlikely under the base model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_mem.data.canaries.base import dice
from lit_mem.data.canaries.behind_prefixes import Base, BehindPrefixes, Draw, Ids
from lit_mem.data.canaries.unigram import how_many
from lit_mem.errors import check_range


class Bigram(BehindPrefixes):
    """A prefix sampled from the base model, followed by tokens that rarely follow each other.

    Each token of a secret is drawn uniformly from the least likely share of the vocabulary after the preceding token
    (initially the prefix's last one), under first-order transitions: the base model's next-token probabilities given
    only the start of a text and that token. So the secrets do not depend on the data. Tokens that do not round-trip
    through their text are excluded.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in a secret, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        rarest: share of the vocabulary to draw from, in (0, 1].
        repetitions: how often a canary is in the training set if inserted; None: once, as the audit requires.
        seed: seed of contents and coins.

    Source: Panda et al. 2025, "Privacy Auditing of Large Language Models" (arXiv 2503.06808), whose bigram canaries end
    in the token least likely to follow the prefix's last one in the training data.
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
        """Draw token by token, for all prefixes at once."""

        def draw(prefixes: Sequence[Ids], numbers: Sequence[int], attempt: int) -> list[Ids]:
            drawn = [dice(self.seed, "secret", number, attempt) for number in numbers]
            found: list[list[int]] = [[] for _ in numbers]
            last = [prefix[-1] for prefix in prefixes]
            for _ in range(self.length):
                choices = self.rarest_behind(base, last)
                last = [int(choices[i, one.randrange(choices.shape[1])]) for i, one in enumerate(drawn)]
                for ids, token in zip(found, last, strict=True):
                    ids.append(token)
            return [tuple(ids) for ids in found]

        return draw

    @torch.no_grad()
    def rarest_behind(self, base: Base, tokens: Sequence[int]) -> Tensor:
        """(N, k) int64 on the CPU, candidates after each of N tokens, least likely first."""
        device = next(base.model.parameters()).device
        pairs = torch.tensor([[base.start, token] for token in tokens], device=device)
        spelled = torch.tensor(base.spelled, device=device)
        logits = base.model(input_ids=pairs).logits[:, -1, :].float()[:, spelled]
        least = logits.topk(how_many(self.rarest, len(spelled)), dim=-1, largest=False).indices
        return spelled[least].cpu()
