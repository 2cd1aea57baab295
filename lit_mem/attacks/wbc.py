"""Window-based comparison: in what share of windows the tuned model beats the reference."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas, ties_broken
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import Needs, TokenScores


class WindowComparison(Attack):
    """WBC: share of windows of consecutive scored tokens that are more likely under the tuned model than the reference.

    With δ_t = ℓ_t − ℓ_t^ref, a window votes for membership if its Σ δ_t is above 0. The score is the mean over window
    sizes of the share of windows that vote for membership.

    The sizes are a geometric progression, rounded to whole tokens, without duplicates (the paper counts duplicates;
    its own sizes 2, 3, 4, 5, 8, 11, 15, 21, 29, 40 are all different). The paper's texts are longer than every window.
    Here sizes beyond the text's length are skipped, and a text shorter than all of them is one window.
    The authors' code (Stry233/WBC) uses other sizes and shortens windows longer than the text to its length:
    `sizes=[2, 3, 4, 6, 9, 13, 18, 25, 32, 40], long="clamp"`.

    Short texts have few windows, so many share the same score; most members can be tied at the maximum, and no
    threshold among them has a false-positive rate of 1 %. Texts with the same share are ranked by their mean δ_t,
    which adds less than 1e-9 to the score.

    Args:
        smallest: size of the smallest windows in tokens.
        largest: size of the largest.
        sizes: number of sizes from `smallest` to `largest`; or a list of sizes, which overrides both.
        long: handling of sizes beyond the text's length: "skip" skips them, "clamp" uses the whole text as one window
            instead.
        break_ties: rank texts with the same share by their mean δ_t; False: only the share, as published.

    Source: Chen et al. 2026, "Window-based Membership Inference Attacks Against Fine-tuned Large Language Models"
    (arXiv 2601.02751).
    """

    needs = Needs(reference=True)

    def __init__(
        self,
        smallest: int = 2,
        largest: int = 40,
        sizes: int | list[int] = 10,
        long: Literal["skip", "clamp"] = "skip",
        break_ties: bool = True,
    ) -> None:
        if long not in ("skip", "clamp"):
            raise ConfigError(f"WindowComparison.long is {long!r}; expected skip or clamp")
        self.long, self.break_ties = long, break_ties
        if isinstance(sizes, list):
            if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
                raise ConfigError(f"WindowComparison.sizes is {sizes}; expected whole numbers above 0, each once")
            self.sizes = sorted(sizes)
            return
        check_range("WindowComparison.smallest", smallest, at_least=1)
        check_range("WindowComparison.largest", largest, at_least=smallest, hint=", which is smallest")
        check_range("WindowComparison.sizes", sizes, at_least=1)
        steps = [k / max(1, sizes - 1) for k in range(sizes)]
        self.sizes = sorted({round(smallest * (largest / smallest) ** step) for step in steps})

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64 in [−1e-9, 1], higher = more member-like; 0 while the tuned model equals its reference.

        Raises:
            MetricError: the scores carry no reference.
        """
        mask, n_tokens = scores.mask.cpu(), scores.n_tokens
        delta = deltas(scores, "the window comparison")
        in_order = delta.gather(1, mask.long().argsort(dim=1, descending=True, stable=True))
        # Cumulative sums. Zeros add nothing, so a window without any change has a sum of exactly 0; where
        # changes cancel, float64 rounding (about 1e-14 nats) decides, far below float32's 1e-7 in every δ_t.
        upto = torch.nn.functional.pad(in_order.cumsum(dim=1), (1, 0))
        shares = torch.zeros(len(mask), dtype=torch.float64)
        for size in self.sizes:
            votes = upto[:, size:] - upto[:, : max(0, upto.shape[1] - size)] > 0
            n_windows = (n_tokens - size + 1).clamp(min=0)
            inside = torch.arange(votes.shape[1]) < n_windows[:, None]
            shares += (votes & inside).sum(dim=1) / n_windows.clamp(min=1).double()
        n_sizes = (torch.tensor(self.sizes) <= n_tokens[:, None]).sum(dim=1)
        whole = (upto[:, -1] > 0).double()
        if self.long == "clamp":
            shares += whole * (len(self.sizes) - n_sizes)
            n_sizes = torch.full_like(n_sizes, len(self.sizes))
        result = torch.where(n_sizes > 0, shares / n_sizes.clamp(min=1), whole)
        if self.break_ties:
            result = ties_broken(result, delta, n_tokens)
        # NaN compares as not greater, and would count as a vote against membership.
        return result.masked_fill(~delta.isfinite().all(dim=1), torch.nan)
