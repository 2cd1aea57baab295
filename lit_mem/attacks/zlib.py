"""The zlib attack: members are likely under the model but not easily compressed."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.attacks.delta import deltas
from lit_mem.types import Needs, TokenScores


class Zlib(Attack):
    """Log-probability of the example in nats per byte of its zlib-compressed text, Σ ℓ_t / len(zlib(x)).

    The compressor stands in for a reference model: a repetitive text is likely under any model, member or not. The
    text is compressed as UTF-8, with zlib's default level and header.

    Source: Carlini et al. 2021, "Extracting Training Data from Large Language Models". There the mean log-probability
    is divided, which favours long texts; here both numerator and denominator grow with the text.

    Args:
        normalize: divide the mean log-probability per token, as Carlini et al. do, instead of the sum.
        calibrated: subtract the same score under the frozen reference: (Σ ℓ_t − Σ ℓ_t^ref) / len(zlib(x)).
    """

    def __init__(self, normalize: bool = False, calibrated: bool = False) -> None:
        self.normalize, self.calibrated = normalize, calibrated
        self.needs = Needs(reference=calibrated)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; at most 0 unless `calibrated`.

        Raises:
            MetricError: the batch carries no texts, or `calibrated` and the scores carry no reference.
        """
        texts = [record.text.encode() for record in scores.records("the zlib attack")]
        logprob = scores.total_logprob
        if self.calibrated:
            logprob = deltas(scores, "the calibrated zlib attack").sum(dim=1)
        if self.normalize:
            logprob = logprob / scores.n_tokens.clamp(min=1)
        # An empty text compresses to 8 bytes, so the divisor is never 0.
        return logprob / torch.tensor([len(zlib.compress(text)) for text in texts], dtype=torch.float64)
