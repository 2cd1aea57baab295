"""The log-ratio of two models over the whole vocabulary, which needs the logits of both at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lit_mem.scoring.scorer import TokenScorer, scored_positions
from lit_mem.scoring.windowed import scored_in_windows
from lit_mem.types import Batch, Needs, TokenScores


class LogRatioScorer:
    """δ_t(v) = log p(v | x_<t) − log p_ref(v | x_<t): its value for the text's own token, and its moments over v ~ p.

    The hidden states of both models are kept for one batch; logits exist for one chunk of tokens at a time.

    Args:
        tuned: the tuned model.
        reference_context: yields the frozen reference; the tuned model runs outside it.
    """

    def __init__(self, tuned: nn.Module, reference_context: Callable[[], AbstractContextManager[nn.Module]]) -> None:
        self._context = reference_context
        self._tuned = TokenScorer(tuned)
        with reference_context() as reference:
            self._reference = TokenScorer(reference)
        self._chunk = min(self._tuned.chunk_tokens, self._reference.chunk_tokens)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> TokenScores:
        """Two forward passes. `hit` is not computed.

        Returns:
            `logprob` is δ_t of the text's tokens; `mean` and `std` are the moments of δ_t(v) under the tuned model.
            (B, T) float32, in nats; exactly 0 where both models give the same logits.
        """
        mask = scored_positions(batch)
        if "windows" in batch:
            return scored_in_windows(self, batch, mask, Needs(moments=True))
        reference = self._reference.logits(batch, mask, self._chunk)
        found = []
        for tuned, target in self._tuned.logits(batch, mask, self._chunk):
            with self._context():
                frozen, _ = next(reference)
            found.append(_log_ratio(tuned, frozen, target))
        delta, mean, std = (
            torch.zeros(mask.shape, dtype=torch.float32, device=mask.device).masked_scatter(mask, torch.cat(parts))
            for parts in zip(*found, strict=True)
        )
        hit = torch.zeros_like(mask)
        return TokenScores(delta, hit, mask, batch["example_id"], batch["member"], mean=mean, std=std, batch=batch)


def _log_ratio(tuned: Tensor, reference: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """δ of each target, and mean and standard deviation of δ under the tuned model, (n,) float32 each.

    Args:
        tuned: (n, V) float32 logits.
        reference: (n, V) float32 logits.
        target: (n,) int64.
    """
    with torch.autocast(tuned.device.type, enabled=False):  # it would round sums of products to 16 bits
        logprob = tuned.log_softmax(dim=-1)
        share = logprob.exp()
        # A token that the tuned model never gives has no part in the moments, whatever the reference says of it.
        delta = (logprob - reference.log_softmax(dim=-1)).masked_fill_(share == 0, 0.0)
        mean = torch.linalg.vecdot(share, delta)
        variance = torch.linalg.vecdot(share, (delta - mean[:, None]).square_())
        return delta.gather(1, target[:, None])[:, 0], mean, variance.sqrt()
