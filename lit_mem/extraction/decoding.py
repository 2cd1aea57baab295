"""Batched decoding with a key-value cache, greedy or sampled, that draws nothing from the global generators."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_mem.types import Sampling

__all__ = ["Decoded", "Sampling", "decode"]


@dataclass(frozen=True)
class Decoded:
    """New tokens of one prompt.

    Attributes:
        ids: (n,) int64 on the CPU, n at most what was asked for; an end-of-text token ends it and is left out.
        logprob: (n,) float32 on the CPU, log-probability in nats of each under the model, untempered.
    """

    ids: Tensor
    logprob: Tensor


def decode(
    model: nn.Module,
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    eos: int | None,
    sampling: Sampling | None = None,
    token_budget: int = 4096,
    keys: Sequence[int] | None = None,
) -> list[Decoded]:
    """Continue each prompt.

    Args:
        model: a causal LM in eval mode.
        prompts: int64 tensors, each at least one token, any lengths.
        lengths: most new tokens for each prompt, at least 1.
        eos: id of the token that ends a text, None if there is no such.
        sampling: None decodes greedily.
        token_budget: most tokens in a batch, counting padding and new tokens.
        keys: tell prompts apart when sampling: what is drawn for one depends on seed and key alone, not on which
            others are in its batch or on its rank. None: the position.

    Returns:
        One `Decoded` a prompt, in the order given.
    """
    keys = range(len(prompts)) if keys is None else keys
    # Alike in prompt length, so that little is padding; a batch runs until its longest continuation is done.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), lengths[i]))
    results: dict[int, Decoded] = {}
    for batch in _batches(order, prompts, lengths, token_budget):
        draws = None if sampling is None else _draws([keys[j] for j in batch], max(lengths[j] for j in batch), sampling)
        outputs = _decode_batch(model, [prompts[j] for j in batch], [lengths[j] for j in batch], eos, sampling, draws)
        results.update(zip(batch, outputs, strict=True))
    return [results[i] for i in range(len(prompts))]


def _batches(
    order: Sequence[int], prompts: Sequence[Tensor], lengths: Sequence[int], token_budget: int
) -> Iterator[list[int]]:
    batch: list[int] = []
    width = longest = 0
    for i in order:
        width, longest = max(width, len(prompts[i])), max(longest, lengths[i])
        if batch and (len(batch) + 1) * (width + longest) > token_budget:
            yield batch
            batch, width, longest = [], len(prompts[i]), lengths[i]
        batch.append(i)
    if batch:
        yield batch


def _draws(keys: Sequence[int], steps: int, sampling: Sampling) -> Tensor:
    """(B, steps) float32, uniform in [0, 1): what decides each token of each prompt."""
    rows = []
    for key in keys:
        seed = int.from_bytes(hashlib.blake2b(f"{sampling.seed}:{key}".encode(), digest_size=7).digest(), "big")
        rows.append(torch.rand(steps, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)


@torch.no_grad()
def _decode_batch(
    model: nn.Module,
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    eos: int | None,
    sampling: Sampling | None,
    draws: Tensor | None,
) -> list[Decoded]:
    device = next(model.parameters()).device
    width = max(len(p) for p in prompts)
    # Padding on the left, so that every row goes on from its last column; masked, so its token does not matter.
    ids = torch.zeros((len(prompts), width), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = prompt
        mask[row, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    position = (mask.cumsum(dim=1) - 1).clamp(min=0)
    remaining = torch.tensor(lengths, device=device)
    tokens, logprobs, cache = [], [], None
    for step in range(max(lengths)):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        logits = output.logits[:, -1].float()
        chosen = _choose(logits, sampling, None if draws is None else draws[:, step].to(device))
        tokens.append(chosen)
        logprobs.append(logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0])
        if eos is not None:
            remaining = torch.where(chosen == eos, 0, remaining)
        unfinished = remaining > step + 1
        if not unfinished.any():
            break
        ids = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        # A finished row stays where it is: it may already be at the last position that the model has.
        position = position[:, -1:] + unfinished[:, None]
    all_tokens, all_logprobs = torch.stack(tokens, dim=1).cpu(), torch.stack(logprobs, dim=1).cpu()
    return [_trimmed(all_tokens[i], all_logprobs[i], lengths[i], eos) for i in range(len(prompts))]


def _choose(logits: Tensor, sampling: Sampling | None, draw: Tensor | None) -> Tensor:
    """(B,) token ids out of (B, V) float32 logits; by inversion of the cumulative distribution at `draw`, (B,)."""
    if sampling is None or draw is None:
        return logits.argmax(dim=-1)
    scaled = logits / sampling.temperature
    if sampling.top_k is not None:
        lowest = scaled.topk(min(sampling.top_k, scaled.shape[-1])).values[:, -1:]
        scaled = scaled.masked_fill(scaled < lowest, -torch.inf)
    cumulative = scaled.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the last sum, which rounding may leave short of 1; "right" never lands on a token of probability 0.
    return torch.searchsorted(cumulative, draw[:, None] * cumulative[:, -1:], right=True)[:, 0]


def _trimmed(tokens: Tensor, logprob: Tensor, length: int, eos: int | None) -> Decoded:
    n = min(length, len(tokens))
    if eos is not None and (ends := (tokens[:n] == eos).nonzero()).numel():
        n = int(ends[0])
    return Decoded(tokens[:n].clone(), logprob[:n].clone())
