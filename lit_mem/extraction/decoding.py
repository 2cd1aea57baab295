"""Batched decoding with a key-value cache, greedy or sampled, that draws nothing from the global generators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Sampling:
    """How tokens are drawn when decoding is not greedy.

    Attributes:
        temperature: logits are divided by it.
        top_k: draw among the k likeliest tokens; None: among all.
        seed: of the generator of its own that draws.
    """

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0


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
) -> list[Decoded]:
    """Continue each prompt.

    Args:
        model: a causal LM in eval mode.
        prompts: int64 tensors, each at least one token, any lengths.
        lengths: most new tokens for each prompt, at least 1.
        eos: id of the token that ends a text, None if there is no such.
        sampling: None decodes greedily.
        token_budget: most tokens in a batch, counting padding and new tokens.

    Returns:
        One `Decoded` a prompt, in the order given.
    """
    generator = None
    if sampling is not None:
        generator = torch.Generator(device=next(model.parameters()).device).manual_seed(sampling.seed)
    # Alike in prompt length, so that little is padding; a batch runs until its longest continuation is done.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), lengths[i]))
    results: dict[int, Decoded] = {}
    batch: list[int] = []
    for i in [*order, None]:
        if i is not None and _cost(prompts, lengths, [*batch, i]) <= token_budget:
            batch.append(i)
            continue
        if batch:
            outputs = _decode_batch(
                model, [prompts[j] for j in batch], [lengths[j] for j in batch], eos, sampling, generator
            )
            results.update(zip(batch, outputs, strict=True))
        batch = [] if i is None else [i]
    return [results[i] for i in range(len(prompts))]


def _cost(prompts: Sequence[Tensor], lengths: Sequence[int], batch: Sequence[int]) -> int:
    return len(batch) * (max(len(prompts[j]) for j in batch) + max(lengths[j] for j in batch))


@torch.no_grad()
def _decode_batch(
    model: nn.Module,
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    eos: int | None,
    sampling: Sampling | None,
    generator: torch.Generator | None,
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
        chosen = _choose(logits, sampling, generator)
        tokens.append(chosen)
        logprobs.append(logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0])
        if eos is not None:
            remaining = torch.where(chosen == eos, 0, remaining)
        if not (remaining > step + 1).any():
            break
        ids = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        position = position[:, -1:] + 1
    all_tokens, all_logprobs = torch.stack(tokens, dim=1).cpu(), torch.stack(logprobs, dim=1).cpu()
    return [_trimmed(all_tokens[i], all_logprobs[i], lengths[i], eos) for i in range(len(prompts))]


def _choose(logits: Tensor, sampling: Sampling | None, generator: torch.Generator | None) -> Tensor:
    """(B,) token ids out of (B, V) float32 logits."""
    if sampling is None:
        return logits.argmax(dim=-1)
    scaled = logits / sampling.temperature
    if sampling.top_k is not None:
        lowest = scaled.topk(min(sampling.top_k, scaled.shape[-1])).values[:, -1:]
        scaled = scaled.masked_fill(scaled < lowest, -torch.inf)
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)[:, 0]


def _trimmed(tokens: Tensor, logprob: Tensor, length: int, eos: int | None) -> Decoded:
    n = min(length, len(tokens))
    if eos is not None and (ends := (tokens[:n] == eos).nonzero()).numel():
        n = int(ends[0])
    return Decoded(tokens[:n].clone(), logprob[:n].clone())
