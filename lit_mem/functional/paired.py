"""Changes of a token-weighted mean loss between two passes over the same texts, with their standard errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Change(NamedTuple):
    """A change and how far chance alone could move it.

    Attributes:
        value: in nats a token; NaN without texts.
        error: its standard error, in the same unit; NaN with fewer than two texts on a side.
        freedom: degrees of freedom of that error.
    """

    value: float
    error: float
    freedom: float

    def beyond_noise(self, chance: float = 0.005, above: float = 0.0) -> bool:
        """Whether it is above a value by more than noise has it with this probability (one-sided t test)."""
        from scipy.special import stdtrit

        if not (math.isfinite(self.value) and math.isfinite(self.error)):
            return False
        return self.value - above > float(stdtrit(self.freedom, 1 - chance)) * self.error


def change_of_loss(before: Tensor, now: Tensor, n_tokens: Tensor) -> Change:
    """How much the mean loss a token of a set of texts has risen.

    The ratio estimator R = Σ d_i / Σ n_i, where d_i is the change of text i's loss in nats; its variance by the delta
    method is N / (N − 1) · Σ (d_i − R n_i)² / (Σ n_i)² (Cochran 1977, Sampling Techniques, 6.4). Pairing by text takes
    out how hard each text is. It takes texts to be drawn independently.

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
    """How much the gap, held-out loss less members' loss, has grown; the two sets share no text.

    Degrees of freedom are Welch's (1947).
    """
    squares = members.error**2, heldout.error**2
    error = math.sqrt(sum(squares))
    freedom = math.inf
    if error > 0:
        parts = (s**2 / change.freedom for s, change in zip(squares, (members, heldout), strict=True) if change.freedom)
        freedom = error**4 / sum(parts)
    return Change(heldout.value - members.value, error, freedom)
