"""RMIA, offline: how many texts of a population an example outdoes in likelihood against the references."""

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

    p_θ(x) is a probability a token, exp of the mean log-probability. p(x) = ((1 + a) · p_out(x) + 1 − a) / 2, with
    p_out the mean over the references: what the mean over models with and without x would be, taken from the latter.

    The population is the set's non-members, the same for every example: a non-member is compared with itself as well,
    and an exact tie (ratio_x / ratio_z = γ) counts half. The paper has population texts apart from the examples, and
    counts ties fully. Were an example left out of its own population, a member and a non-member with equal ratios
    would not score the same, and the likeliest non-member would tie with all members above it.

    Args:
        references: as in `PopulationAttack`; one is enough.
        a: from 0 to 1; 1 takes p_out for p. The better the references fit the examples, the nearer to 1.
        gamma: above 0.

    Source: Zarifzadeh et al. 2024, "Low-Cost High-Power Membership Inference Attacks" (arXiv 2312.03262), with p(x)
    as its offline attack has it.
    """

    def __init__(self, references: list[str], a: float = 0.33, gamma: float = 1.0) -> None:
        super().__init__(references)
        check_range("OfflineRMIA.a", a, at_least=0, at_most=1)
        check_range("OfflineRMIA.gamma", gamma, above=0)
        self.a, self.gamma = a, gamma

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, log ratio_x, higher = more member-like; `over_set` makes shares of them.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        out = self.reference_mean_logprob(scores)
        p_out = out.logsumexp(dim=0) - math.log(len(out))
        # In logarithms: the probability of a long text's mean token may be too small for a ratio.
        raised = torch.tensor([(1 + self.a) / 2, (1 - self.a) / 2], dtype=torch.float64).log()
        ratio = mean_logprob(scores) - torch.logaddexp(p_out + raised[0], raised[1])
        return ratio.masked_fill(scores.n_tokens == 0, 0.0)

    def over_set(self, score: Tensor, member: Tensor) -> Tensor:
        """Log ratios of a whole set to shares of its non-members.

        Args:
            score: (N,) float64, log ratios; NaN stays NaN, and is no part of the population.
            member: (N,) bool.

        Returns:
            (N,) float64 in [0, 1], higher = more member-like.

        Raises:
            MetricError: there is no non-member.
        """
        population = score[~member & ~score.isnan()].sort().values
        if not len(population):
            raise MetricError("OfflineRMIA compares with the set's non-members, and there is none")
        reach = score - math.log(self.gamma)
        below = torch.searchsorted(population, reach).double()
        not_above = torch.searchsorted(population, reach, right=True).double()
        return ((below + not_above) / (2 * len(population))).masked_fill(score.isnan(), torch.nan)
