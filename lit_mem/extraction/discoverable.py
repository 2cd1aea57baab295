"""(n, p)-discoverable extraction: extraction by sampling, computed without sampling."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from lit_mem.errors import MetricError, check_range
from lit_mem.extraction.prompts import check_prefix
from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.functional.ends import before_end, first_run, own_tokens
from lit_mem.functional.tries import probability_within
from lit_mem.types import Needs, Sampling, TokenScores

_DEFAULT: Final = Sampling(top_k=40)


class Discoverable(ScoredMeasure):
    """Whether the whole suffix is sampled at least once within n tries with probability p or more: 1 or 0.

    The probability of one try, p_z, is the product of the suffix tokens' probabilities under the sampling scheme, which
    one forward pass gives exactly; so no token is sampled, and n can be arbitrarily large. With `p` None the value is
    the probability itself, 1 − (1 − p_z)^n; its mean is the expected share of texts extracted. The suffix ends before
    its first end token, where sampling stops, and at the end of its run of scored tokens.

    Args:
        n: number of tries.
        p: the probability that counts as extractable; None: return the probability.
        prefix: share of the example's tokens used as the prompt (below 1), or their number; an example with no more
            tokens gives 0.
        sampling: sampling scheme; None: top-k of 40 at temperature 1. A given scheme is not merged with this default:
            `{temperature: 0.7}` samples from all tokens.

    Source: Hayes et al. 2024, "Measuring memorization through probabilistic discoverable extraction" (arXiv
    2410.19482).
    """

    def __init__(
        self,
        n: float = 1000,
        p: float | None = 0.5,
        prefix: float = 0.5,
        sampling: Sampling | None = None,
    ) -> None:
        check_range("Discoverable.n", n, at_least=1)
        check_range("Discoverable.p", p, above=0, below=1, or_null=True)
        check_prefix(prefix, "Discoverable.prefix")
        # None as the default: jsonargparse would merge `{temperature: 0.7}` with the fields of a default instance.
        sampling = _DEFAULT if sampling is None else sampling
        sampling.check("Discoverable.sampling")
        self.n, self.p, self.prefix, self.sampling = n, p, prefix, sampling
        self.needs = Needs(sampling=frozenset({sampling}))

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [0, 1].

        Raises:
            MetricError: the scores have no log-probabilities under this scheme.
        """
        logprob = self.suffix_logprob(scores)
        probability = probability_within(logprob, self.n)
        return probability if self.p is None else (probability >= self.p).double()

    def suffix_logprob(self, scores: TokenScores) -> Tensor:
        """(B,) float64, log p_z in nats for the whole suffix in one try; -inf without a suffix."""
        if self.sampling not in scores.sampled:
            raise MetricError(f"the module gave no log-probabilities under {self.sampling}")
        mask = own_tokens(scores.mask, scores.ends)
        # The product may fall a rounding error short of a whole number, as 0.29 x 100 does.
        share = (mask.sum(dim=1) * self.prefix + 1e-9).floor()
        given = share if self.prefix < 1 else torch.full_like(share, self.prefix)
        suffix = before_end(first_run(mask & (mask.cumsum(dim=1) > given[:, None])), scores.ends)
        drawn = scores.sampled[self.sampling].cpu().double()
        total = torch.where(suffix, drawn, 0.0).sum(dim=1)
        return torch.where(suffix.any(dim=1), total, -torch.inf)
