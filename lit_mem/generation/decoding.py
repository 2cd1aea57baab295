"""Batched decoding with a key-value cache, greedy or sampled, without using the global random generators.

A step of a small batch costs reading all weights, however few its rows; a step of a large one costs its rows, including
padding and finished ones. So a batch holds as many prompts as possible: finished texts leave it and waiting ones enter
(continuous batching); and prompts are prefilled with others of similar length.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from lit_mem.functional.ends import End, as_ends, is_end
from lit_mem.generation.rows import AnyRows, begin, merged
from lit_mem.types import Sampling, States

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
    states: Callable[[int], States | None] | None = None,
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
        states: called once with the position of each prompt, when it enters a batch: the model's keys and values of
            the prompt's tokens, except for the last; more are ignored. None: these are not known, and the prompt is
            read.

    Returns:
        One `Decoded` per prompt, in the given order.
    """
    if not prompts:
        return []
    keys, ends = range(len(prompts)) if keys is None else keys, as_ends(eos)
    draws = None if sampling is None else _draws(keys, max(lengths), sampling)
    # Longest first: a prompt that starts last is then done soonest, and batches are large to the end.
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], len(prompts[i])))
    writing = _Writing(
        model,
        [prompts[i] for i in order],
        [lengths[i] for i in order],
        ends,
        sampling,
        None if draws is None else draws[order],
        advance or (lambda tokens: None),
        None if states is None else lambda k: states(order[k]),
    )
    writing.run(token_budget)
    results = dict(zip(order, writing.results(), strict=True))
    return [results[i] for i in range(len(prompts))]


def _draws(keys: Sequence[int], steps: int, sampling: Sampling) -> Tensor:
    """(B, steps) float32, uniform in [0, 1): the random draw for each token of each prompt."""
    rows = []
    for key in keys:
        seed = int.from_bytes(hashlib.blake2b(f"{sampling.seed}:{key}".encode(), digest_size=7).digest(), "big")
        rows.append(torch.rand(steps, dtype=torch.float32, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)


class _Writing:
    """The schedule of some prompts: which are continued now, and what is written so far.

    Args:
        model: a causal LM in eval mode.
        prompts: int64 tensors on the CPU, in the order in which they enter.
        lengths: maximum number of new tokens for each, at least 1.
        ends: ids of the tokens that end a text.
        sampling: sampling options; None decodes greedily.
        draws: (N, steps) random draws; None if greedy.
        advance: called with numbers of finished tokens.
        states: gives keys and values of prompts, where known.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Tensor],
        lengths: Sequence[int],
        ends: frozenset[int],
        sampling: Sampling | None,
        draws: Tensor | None,
        advance: Callable[[int], None],
        states: Callable[[int], States | None] | None,
    ) -> None:
        self._model, self._prompts, self._lengths = model, prompts, lengths
        self._ends, self._sampling, self._advance, self._states = ends, sampling, advance, states
        device = next(model.parameters()).device
        self._draws = None if draws is None else draws.to(device)
        self._stops = torch.tensor(sorted(ends), dtype=torch.int64, device=device)  # once, as copying to a GPU blocks
        # The last column takes what finished rows write that are still in the batch.
        self._tokens = torch.zeros((len(prompts), max(lengths) + 1), dtype=torch.int64, device=device)
        self._logprobs = torch.zeros(self._tokens.shape, dtype=torch.float32, device=device)
        self._column = torch.zeros(len(prompts), dtype=torch.int64, device=device)
        self._ended = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        self._written = [0] * len(prompts)
        self._every, self._steps = _STEPS_BETWEEN_LOOKS.get(device.type, _STEPS_BETWEEN_LOOKS_ELSEWHERE), 0
        self._waiting = deque(range(len(prompts)))

    @torch.no_grad()
    def run(self, token_budget: int) -> None:
        """Continue all prompts, with at most this many tokens in a batch."""
        parts: list[AnyRows] = []
        while parts or self._waiting:
            parts = parts or merged(self._read(self._begin(self._fitting([], token_budget))))
            rows: AnyRows | None = parts.pop(0)  # caches that cannot be merged are continued one after the other
            while rows is not None:
                rows = self._step(rows, token_budget)
        self._advance(sum(self._lengths) - sum(self._written))

    def _step(self, rows: AnyRows, token_budget: int) -> AnyRows | None:
        """Write a token of each row; finished texts leave and waiting ones enter. None: all have finished."""
        chosen, staying = self._write(rows)
        if not staying:
            return None
        entering = self._fitting([rows.index[k] for k in staying], token_budget) if rows.in_place else 0
        if 4 * entering < len(staying) and entering < len(self._waiting):
            entering = 0  # joining copies the cache, which costs about as much as a step of a quarter of the rows
        leaving_pays = rows.leaving_pays(len(staying), are_first=staying[-1] < len(staying))
        if len(staying) < len(rows.index) and (leaving_pays or entering or rows.full):
            rows.keep(staying)
            chosen = chosen[torch.tensor(staying, device=chosen.device)]
        rows.put(chosen)
        begun = self._begin(entering) if entering else []
        unread = [part for part in begun if part.unread is not None]  # read along with the others
        if unread:
            (rows,) = merged([rows, *unread])
        elif rows.full:
            rows.grow()
        others = [part for part in begun if part.unread is None]
        rows.read()
        return merged([rows, *others])[0] if others else rows

    @staticmethod
    def _read(parts: list[AnyRows]) -> list[AnyRows]:
        """The same rows, all of them read."""
        for part in parts:
            if part.unread is not None:
                part.read()
        return parts

    def _write(self, rows: AnyRows) -> tuple[Tensor, list[int]]:
        """(n,) int64, the next token of each row, and the positions of the rows that have not finished."""
        place, length = rows.place, self._tokens.shape[1] - 1
        column = self._column[place].clamp(max=length)
        draw = None if self._draws is None else self._draws[place, column.clamp(max=length - 1)]
        chosen = _choose(rows.logits, self._sampling, draw)
        self._tokens[place, column] = chosen
        self._logprobs[place, column] = rows.logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        self._column[place] = column + 1
        unfinished = [i for i in rows.index if self._remaining(i)]
        for i in unfinished:
            self._written[i] += 1
        self._advance(len(unfinished))
        staying = [k for k, i in enumerate(rows.index) if self._remaining(i)]
        if self._ends:
            self._ended[place] |= torch.isin(chosen, self._stops)
            self._steps += 1
            if self._steps % self._every == 0:
                over = self._ended[place].tolist()
                staying = [k for k in staying if not over[k]]
        return chosen, staying

    def _remaining(self, i: int) -> int:
        """Number of tokens that a prompt may still get."""
        return self._lengths[i] - self._written[i]

    def _whole(self, i: int) -> int:
        """Length of a prompt with all tokens that it may get."""
        return len(self._prompts[i]) + self._lengths[i]

    def _fitting(self, active: Sequence[int], token_budget: int) -> int:
        """Number of waiting prompts that fit beside these; at least one beside none."""
        width, n = max(map(self._whole, active), default=0), len(active)
        for count, i in enumerate(self._waiting):
            width = max(width, self._whole(i))
            if n + count and (n + count + 1) * width > token_budget:
                return count
        return len(self._waiting)

    def _begin(self, count: int) -> list[AnyRows]:
        """Let the first waiting prompts enter; those of known states still have a last token to be read."""
        group = [self._waiting.popleft() for _ in range(count)]
        some = [self._prompts[i] for i in group], [self._lengths[i] for i in group]
        return begin(self._model, group, *some, None if self._states is None else map(self._states, group))

    def results(self) -> list[Decoded]:
        """What was written for each prompt."""
        tokens, logprobs = self._tokens.cpu(), self._logprobs.cpu()
        return [_trimmed(tokens[i], logprobs[i], n, self._ends) for i, n in enumerate(self._lengths)]


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
