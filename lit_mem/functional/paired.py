"""Changes of a token-weighted mean loss between two passes over the same texts, with their standard errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Change(NamedTuple):
    """A change with its standard error.

    Attributes:
        value: in nats per token; NaN without texts.
        error: its standard error, in the same unit; NaN with fewer than two texts in a set.
        freedom: degrees of freedom of that error.
    """

    value: float
    error: float
    freedom: float

    def beyond_noise(self, chance: float = 0.005, above: float = 0.0) -> bool:
        """Whether it exceeds a value significantly: one-sided t test at level `chance`."""
        from scipy.special import stdtrit

        if not (math.isfinite(self.value) and math.isfinite(self.error)):
            return False
        return self.value - above > float(stdtrit(self.freedom, 1 - chance)) * self.error


def change_of_loss(before: Tensor, now: Tensor, n_tokens: Tensor) -> Change:
    """Increase of the mean loss per token of a set of texts.

    The ratio estimator R = Σ d_i / Σ n_i, where d_i is the change of text i's loss in nats; its variance by the delta
    method is N / (N − 1) · Σ (d_i − R n_i)² / (Σ n_i)² (Cochran 1977, Sampling Techniques, 6.4). Pairing by text
    removes the variance between texts. Assumes that texts are drawn independently.

    Args:
        before: (N,) each text's loss, summed over its tokens, in nats.
        now: (N,) the same in the later pass.
        n_tokens: (N,) numbers of tokens, above 0.

    >>> change_of_loss(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))
    Change(value=-1.0, error=0.0, freedom=1)
    """
    n, total = len(n_tokens), n_tokens.double().sum()
    if n == 0:
        return Change(math.nan, math.nan, 0)
    change = now.double() - before.double()
    ratio = change.sum() / total
    if n == 1:
        return Change(ratio.item(), math.nan, 0)
    squares = (change - ratio * n_tokens.double()).square().sum()
    return Change(ratio.item(), (torch.sqrt(squares * n / (n - 1)) / total).item(), n - 1)


def change_of_gap(members: Change, heldout: Change) -> Change:
    """Increase of the gap, held-out loss minus members' loss; the two sets are disjoint.

    Degrees of freedom are Welch's (1947).
    """
    squares = members.error**2, heldout.error**2
    error = math.sqrt(sum(squares))
    freedom = math.inf
    if error > 0:
        parts = (s**2 / change.freedom for s, change in zip(squares, (members, heldout), strict=True) if change.freedom)
        freedom = error**4 / sum(parts)
    return Change(heldout.value - members.value, error, freedom)
