"""RMIA, offline: the share of population texts that an example exceeds in relative likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_mem.attacks.likelihood import mean_logprob
from lit_mem.attacks.population import PopulationAttack
from lit_mem.errors import MetricError, check_range
from lit_mem.types import TokenScores


class OfflineRMIA(PopulationAttack):
    """Share of population texts z with ratio_x / ratio_z ≥ γ, where ratio_x = p_θ(x) / p(x).

    p_θ(x) is a probability per token, exp of the mean log-probability. p(x) = ((1 + a) · p_out(x) + 1 − a) / 2, with
    p_out the mean over the references: an estimate of the mean over models with and without x from those without.

    The population is the set's non-members, the same for every example: a non-member is compared with itself as well,
    and an exact tie (ratio_x / ratio_z = γ) counts half. The paper uses separate population texts, and counts ties
    fully. If an example were left out of its own population, a member and a non-member with equal ratios would not
    score the same, and the most likely non-member would tie with all members above it.

    Args:
        references: as in `PopulationAttack`; one is enough.
        a: in [0, 1]; with 1, p = p_out. The better the references fit the examples, the closer to 1 it should be.
        gamma: above 0.

    Source: Zarifzadeh et al. 2024, "Low-Cost High-Power Membership Inference Attacks" (arXiv 2312.03262), with p(x)
    of its offline attack.
    """

    def __init__(self, references: list[str], a: float = 0.33, gamma: float = 1.0) -> None:
        super().__init__(references)
        check_range("OfflineRMIA.a", a, at_least=0, at_most=1)
        check_range("OfflineRMIA.gamma", gamma, above=0)
        self.a, self.gamma = a, gamma

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, log ratio_x, higher = more member-like; `over_set` converts them to shares.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        out = self.reference_mean_logprob(scores)
        p_out = out.logsumexp(dim=0) - math.log(len(out))
        # In log space: the per-token probability of a text may underflow.
        raised = torch.tensor([(1 + self.a) / 2, (1 - self.a) / 2], dtype=torch.float64).log()
        ratio = mean_logprob(scores) - torch.logaddexp(p_out + raised[0], raised[1])
        return ratio.masked_fill(scores.n_tokens == 0, 0.0)

    def over_set(self, score: Tensor, member: Tensor) -> Tensor:
        """Convert log ratios of a whole set to shares of its non-members.

        Args:
            score: (N,) float64, log ratios; NaN stays NaN, and is not part of the population.
            member: (N,) bool.

        Returns:
            (N,) float64 in [0, 1], higher = more member-like.

        Raises:
            MetricError: there are no non-members.
        """
        population = score[~member & ~score.isnan()].sort().values
        if not len(population):
            raise MetricError("OfflineRMIA compares with the set's non-members, but there are none")
        reach = score - math.log(self.gamma)
        below = torch.searchsorted(population, reach).double()
        not_above = torch.searchsorted(population, reach, right=True).double()
        return ((below + not_above) / (2 * len(population))).masked_fill(score.isnan(), torch.nan)
