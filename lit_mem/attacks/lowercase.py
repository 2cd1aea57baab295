"""The lower-case attack: members are texts whose exact casing the model knows."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import (
    batch_of,
    divisible,
    examples_of,
    longest_input,
    mean_logprob,
    probed_mean_logprob,
)
from lit_mem.attacks.rewriting import rewritten
from lit_mem.types import IGNORED, TokenScores


class Lowercase(ProbingAttack):
    """Ratio of log-perplexities, that of the lower-cased text over that of the text: loss(lower(x)) / loss(x).

    Each loss is the mean over the tokens of its own tokenization, whose numbers usually differ. Only the scored
    text is lower-cased; a prompt before it keeps its tokens. A text that is already in lower case scores 1. It costs
    one more forward pass.

    Source: Carlini et al. 2021, "Extracting Training Data from Large Language Models".
    """

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at least 0, higher = more member-like.

        NaN for an example whose lower-cased text has no token that can be scored: a text of two tokens that becomes
        one, under a tokenizer without BOS.

        Raises:
            MetricError: the scores do not carry their batch, or the batch carries no texts.
        """
        batch_of(scores, "the lower-case attack")
        records = scores.records("the lower-case attack")
        limit = longest_input(self.prober)
        result = torch.zeros(len(records), dtype=torch.float64)
        rows, kept = [], []
        for row, example in examples_of(scores):
            (lower,) = rewritten(example, records[row].text, [records[row].text.lower()], self.prober.tokenizer, limit)
            if (lower.labels != IGNORED).any():
                rows.append(lower)
                kept.append(row)
            else:
                result[row] = torch.nan
        loss = divisible(mean_logprob(scores))[kept]
        result[kept] = divisible(probed_mean_logprob(self.prober, rows, scores)) / loss
        return result
