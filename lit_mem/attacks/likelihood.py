"""Shared by the probing attacks: mean log-probabilities of texts from the scoring pass or from further passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, cast

import torch
from torch import Tensor

from lit_mem.adapters.positions import readable
from lit_mem.data.encoding import Encoded, collate
from lit_mem.errors import MetricError
from lit_mem.functional.length_groups import length_groups
from lit_mem.types import IGNORED, Batch, Prober, TokenScores

_CERTAIN: Final = -1e-6


def batch_of(scores: TokenScores, who: str) -> Batch:
    """The batch that was scored.

    Raises:
        MetricError: it was not kept; `who` names the attack in the message.
    """
    if scores.batch is None:
        raise MetricError(f"{who} needs the examples' tokens, but the scores do not carry their batch")
    return scores.batch


def examples_of(scores: TokenScores) -> Iterator[tuple[int, Encoded]]:
    """Each example that has a scored token, with its row.

    Unless it is read in windows, it is truncated after its last scored token, which changes no score. Its labels are
    the scored tokens. Its tensors are new ones on the CPU.
    """
    batch = batch_of(scores, "a probing attack")
    windows = batch.get("windows", [None] * len(scores.example_id))
    ids, masks = batch["input_ids"].cpu(), scores.mask.cpu()
    rows = zip(scores.example_id.tolist(), scores.member.tolist(), windows, strict=True)
    for row, (example_id, member, text) in enumerate(rows):
        if masks[row].any():
            end = int(masks[row].nonzero().max()) + 1 if text is None else text.length
            labels = torch.where(masks[row, :end], ids[row, :end], IGNORED)
            yield row, Encoded(ids[row, :end].clone(), labels, example_id, member, windows=text)


def mean_logprob(scores: TokenScores) -> Tensor:
    """(B,) float64 on the CPU, (1/n) Σ ℓ_t in nats; 0 for an example without a scored token."""
    return scores.total_logprob / scores.n_tokens.clamp(min=1)


def divisible(mean: Tensor) -> Tensor:
    """Clamp mean log-probabilities to at most −1e-6, so that they can be used as divisors.

    Values between that and 0 are rounding of float32 logits: the model is certain of the text.
    """
    return mean.clamp(max=_CERTAIN)


def probed_mean_logprob(prober: Prober, rows: Sequence[Encoded], scores: TokenScores) -> Tensor:
    """Mean log-probability of further texts under the tuned model.

    Args:
        prober: runs the model.
        rows: the texts; labelled tokens count.
        scores: the scoring pass that the texts derive from. A batch has at most as many tokens, padding included, as
            there, so that memory use does not grow. A longer text is a batch of its own.

    Returns:
        (len(rows),) float64 on the CPU, in nats.
    """
    result = torch.zeros(len(rows), dtype=torch.float64)
    for group in length_groups([len(row.input_ids) for row in rows], scores.mask.numel()):
        batch = collate([rows[i] for i in group])
        if scores.batch is not None and "at_once" in scores.batch:
            batch["at_once"] = scores.batch["at_once"]
        moved = {k: v.to(scores.mask.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        result[group] = mean_logprob(prober.score(cast("Batch", moved)))
    return result


def longest_input(prober: Prober) -> int | None:
    """Maximum number of tokens of a text after virtual tokens, if any; None without a limit."""
    return readable(prober.language_model)
