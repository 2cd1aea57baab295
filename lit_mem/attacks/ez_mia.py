"""EZ-MIA: whether the tuned model, where its greedy token is wrong, gives the true token more than the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas, ties_broken
from lit_mem.errors import check_range
from lit_mem.types import Needs, TokenScores


class EzMia(Attack):
    """Balance of rises and falls in log-probability where the tuned model's greedy token is wrong (its error zone).

    With δ_t = ℓ_t − ℓ_t^ref in nats, P the sum of the positive δ_t in that zone and N the sum of the absolute values of
    the negative ones, the paper's score is P / N. This one is (P − N) / (P + N), which increases strictly with P / N,
    so ranks the same, and is finite: 1 if nothing fell (an infinite ratio, the strongest evidence), −1 if nothing rose.

    The paper leaves two cases undefined. A text that the tuned model predicts entirely has no error zone, just where
    memorization is strongest; then, and if every δ_t of the zone is 0, all scored tokens are used. If every δ_t is 0
    even so, there is no evidence, and the score is 0.

    The authors' code (JetBrains-Research/ez-mia) handles them differently: it skips the first predicted token, and a
    text with fewer than two errors, or without a decrease, has the ratio 0, the lowest. `first=2, least=2` ranks texts
    as that code does.

    In short texts often nothing falls, so that many are tied at 1, and no threshold among them has a false-positive
    rate of 1 %. Texts with the same balance are ranked by their mean δ_t, which adds less than 1e-9 to the score.

    Args:
        first: the first scored token to read, counted from 1; earlier ones are ignored.
        least: minimum number of errors of a text. A text with fewer, or without a δ_t below 0 in its error zone, scores
            −1, that of the ratio 0. None: such texts are scored as described above.

    Raises:
        ConfigError: an option is below 1.

    Source: Ilić et al. 2026, "Powerful Training-Free Membership Inference Against Autoregressive Language Models"
    (arXiv 2601.12104).
    """

    needs = Needs(reference=True)

    def __init__(self, first: int = 1, least: int | None = None, break_ties: bool = True) -> None:
        check_range("EzMia.first", first, at_least=1)
        check_range("EzMia.least", least, at_least=1, or_null=True)
        self.first, self.least, self.break_ties = first, least, break_ties

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [−1, 1], higher = more member-like; the same for all while the model equals its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        mask = scores.mask.cpu()
        mask = mask & (mask.cumsum(dim=1) >= self.first)
        every = delta = deltas(scores, "the EZ-MIA attack").masked_fill(~mask, 0.0)
        errors = mask & ~scores.hit.cpu()
        in_zone = delta.masked_fill(~errors, 0.0)
        if self.least is None:
            delta = torch.where((in_zone != 0).any(dim=1, keepdim=True), in_zone, delta)
        else:
            delta = in_zone
        rise, fall = delta.clamp(min=0).sum(dim=1), delta.clamp(max=0).sum(dim=1).neg()
        total = rise + fall
        balance = torch.where(total == 0, 0.0, (rise - fall) / total)
        if self.least is None:
            return ties_broken(balance, every, mask.sum(dim=1)) if self.break_ties else balance
        return balance.masked_fill((errors.sum(dim=1) < self.least) | (fall == 0), -1.0)
