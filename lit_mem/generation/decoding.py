"""Batched decoding with a key-value cache, greedy or sampled, without using the global random generators.

A step of a small batch costs reading all weights, however few its rows; a step of a large one costs its rows, including
padding and finished ones. So a batch holds as many prompts as possible, with similar numbers of tokens left to
generate; prompts are prefilled with others of similar length; and finished rows are removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from lit_mem.functional.ends import End, as_ends, is_end
from lit_mem.generation.rows import Rows
from lit_mem.types import Sampling

__all__ = ["Decoded", "Sampling", "decode"]

# A GPU runs ahead of its host until a result is read, so end tokens are checked in every n-th step only.
_STEPS_BETWEEN_LOOKS: Final = {"cpu": 1}
_STEPS_BETWEEN_LOOKS_ELSEWHERE: Final = 8


@dataclass(frozen=True)
class Decoded:
    """New tokens of one prompt.

    Attributes:
        ids: (n,) int64 on the CPU, n at most the requested length; excludes the end token that stops it.
        logprob: (n,) float32 on the CPU, log-probability in nats of each under the model, at temperature 1.
    """

    ids: Tensor
    logprob: Tensor


def decode(
    model: nn.Module,
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    eos: End,
    sampling: Sampling | None = None,
    token_budget: int = 4096,
    keys: Sequence[int] | None = None,
    advance: Callable[[int], None] | None = None,
) -> list[Decoded]:
    """Continue each prompt.

    Args:
        model: a causal LM in eval mode.
        prompts: int64 tensors, each at least one token, any lengths.
        lengths: maximum number of new tokens for each prompt, at least 1.
        eos: ids of the tokens that end a text; None without any.
        sampling: sampling options; None decodes greedily.
        token_budget: maximum number of tokens in a batch, including padding and new tokens.
        keys: identify prompts when sampling: random draws depend only on seed and key, not on the other prompts in the
            batch or on the rank. None: the position.
        advance: called with the number of tokens finished since the last call: generated, or skipped because the text
            ended. The total is the sum of `lengths`.

    Returns:
        One `Decoded` per prompt, in the given order.
    """
    keys, ends = range(len(prompts)) if keys is None else keys, as_ends(eos)
    # Longest first: the rows that finish first are then the last of a batch, and it stays large to its end.
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], len(prompts[i])))
    results: dict[int, Decoded] = {}
    for batch in _batches(order, prompts, lengths, token_budget):
        draws = None if sampling is None else _draws([keys[j] for j in batch], max(lengths[j] for j in batch), sampling)
        some = [prompts[j] for j in batch], [lengths[j] for j in batch]
        outputs = _decode_batch(model, *some, ends, sampling, draws, advance or (lambda tokens: None))
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
    """(B, steps) float32, uniform in [0, 1): the random draw for each token of each prompt."""
    rows = []
    for key in keys:
        seed = int.from_bytes(hashlib.blake2b(f"{sampling.seed}:{key}".encode(), digest_size=7).digest(), "big")
        rows.append(torch.rand(steps, dtype=torch.float32, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)


@torch.no_grad()
def _decode_batch(
    model: nn.Module,
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    ends: frozenset[int],
    sampling: Sampling | None,
    draws: Tensor | None,
    advance: Callable[[int], None],
) -> list[Decoded]:
    written = 0
    device = next(model.parameters()).device
    every = _STEPS_BETWEEN_LOOKS.get(device.type, _STEPS_BETWEEN_LOOKS_ELSEWHERE)
    draws = None if draws is None else draws.to(device)
    stops = torch.tensor(sorted(ends), dtype=torch.int64, device=device)  # once, as copying to a GPU blocks
    tokens = torch.zeros((len(prompts), max(lengths)), dtype=torch.int64, device=device)
    logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
    for rows in Rows.begin(model, prompts, lengths):
        ended = torch.zeros(len(rows.index), dtype=torch.bool, device=device)
        for step in range(max(lengths)):
            chosen = _choose(rows.logits, sampling, None if draws is None else draws[rows.place, step])
            tokens[rows.place, step] = chosen
            logprobs[rows.place, step] = rows.logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
            staying = [k for k, i in enumerate(rows.index) if lengths[i] > step + 1]
            open_rows = sum(lengths[i] > step for i in rows.index)
            written += open_rows
            advance(open_rows)
            if ends:
                ended |= torch.isin(chosen, stops)
                if (step + 1) % every == 0:
                    over = ended.tolist()
                    staying = [k for k in staying if not over[k]]
            if not staying:
                break
            if rows.leaving_pays(len(staying), are_first=staying[-1] < len(staying)):
                rows.keep(staying)
                kept = torch.tensor(staying, device=device)
                chosen, ended = chosen[kept], ended[kept]
            rows.step(chosen)
    advance(sum(lengths) - written)
    all_tokens, all_logprobs = tokens.cpu(), logprobs.cpu()
    return [_trimmed(all_tokens[i], all_logprobs[i], lengths[i], ends) for i in range(len(prompts))]


def _choose(logits: Tensor, sampling: Sampling | None, draw: Tensor | None) -> Tensor:
    """(B,) token ids from (B, V) float32 logits; by inverting the cumulative distribution at `draw`, (B,)."""
    if sampling is None or draw is None:
        return logits.argmax(dim=-1)
    scaled = logits / sampling.temperature
    if sampling.top_k is not None:
        lowest = scaled.topk(min(sampling.top_k, scaled.shape[-1])).values[:, -1:]
        scaled = scaled.masked_fill(scaled < lowest, -torch.inf)
    cumulative = scaled.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the last sum, which rounding may leave below 1; "right" never selects a token of probability 0.
    chosen = torch.searchsorted(cumulative, draw[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return chosen.clamp(max=logits.shape[-1] - 1)  # out of range if the logits are NaN


def _trimmed(tokens: Tensor, logprob: Tensor, length: int, ends: frozenset[int]) -> Decoded:
    n = min(length, len(tokens))
    if (found := is_end(tokens[:n], ends).nonzero()).numel():
        n = int(found[0])
    return Decoded(tokens[:n].clone(), logprob[:n].clone())
