"""Shared by the attacks that prepend other texts to an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lit_mem.attacks.likelihood import batch_of, examples_of, probed_mean_logprob
from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError
from lit_mem.types import IGNORED, Prober, TokenScores


@dataclass(frozen=True, eq=False)
class Shot:
    """One text of a prefix.

    Attributes:
        ids: (T,) int64 on the CPU, its tokens, without a BOS or end-of-text token.
        example_id: id of the example; None for a custom text.
    """

    ids: Tensor
    example_id: int | None = None


def body(ids: Tensor, tokenizer: Any) -> Tensor:
    """(T,) token ids of a text on the CPU, without a BOS or end-of-text token."""
    ids = ids.cpu()
    if len(ids) and ids[0] == tokenizer.bos_token_id:
        ids = ids[1:]
    if len(ids) and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids


def random_shots(prober: Prober, member: bool, shots: int, seed: int, who: str) -> list[Shot]:
    """Draw `shots` members, or held-out texts, without replacement; the same on every rank.

    Raises:
        ConfigError: there are no more of them than `shots`, so that none would be left to score.
    """
    texts = prober.texts(member)
    bodies = {i: body(texts[i], prober.tokenizer) for i in sorted(texts)}
    usable = [Shot(ids, i) for i, ids in bodies.items() if len(ids)]
    if len(usable) <= shots:
        what = "members" if member else "held-out texts"
        raise ConfigError(f"{who}.shots is {shots}, but there are {len(usable)} {what}; expected more than that")
    drawn = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))[:shots]
    return [usable[i] for i in drawn.tolist()]


def given_shots(texts: Sequence[str], tokenizer: Any) -> list[Shot]:
    """Shots from custom texts."""
    return [Shot(torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])) for text in texts]


def longest_text(texts: Iterable[Mapping[int, Tensor]], tokenizer: Any) -> int:
    """Number of tokens of the longest of all these texts."""
    return max((len(body(ids, tokenizer)) for some in texts for ids in some.values()), default=1)


def fitting(shots: Sequence[Shot], longest: int, limit: int | None, who: str) -> list[Shot]:
    """Drop the longest shots one by one until prefix and longest text fit the model.

    Args:
        shots: in the order of the prefix.
        longest: number of tokens of the longest text after the prefix.
        limit: number of tokens that the model can read; None without a limit.
        who: the attack, for the message.

    Raises:
        ConfigError: no shot fits.
    """
    kept = list(shots)
    # One more for the BOS.
    while limit is not None and kept and 1 + sum(len(shot.ids) for shot in kept) + longest > limit:
        lengths = [len(shot.ids) for shot in kept]
        del kept[max(i for i, length in enumerate(lengths) if length == max(lengths))]
    if not kept:
        shortest = min(len(shot.ids) for shot in shots)
        raise ConfigError(
            f"{who}: no shot fits: the longest text has {longest} tokens, the shortest shot {shortest}, and the model "
            f"reads {limit}; shorten the texts (data.max_length) or remove {who}"
        )
    return kept


def conditional_mean_logprob(
    prober: Prober, scores: TokenScores, shots: Sequence[Shot], limit: int | None, who: str
) -> Tensor:
    """Mean log-probability of each example after a prefix, LL(x | P), over the tokens scored without it.

    Args:
        prober: runs the model.
        scores: the examples.
        shots: the prefix. A BOS of the example is moved in front of it.
        limit: number of tokens that the model can read; None without a limit.
        who: the attack, for messages.

    Returns:
        (B,) float64 on the CPU, in nats; NaN for an example that is in the prefix, by id or by its tokens;
        0 for one without a scored token.

    Raises:
        ConfigError: prefix and example are longer than `limit`, or an example is read in windows.
    """
    batch_of(scores, who)
    tokenizer = prober.tokenizer
    prefix = torch.cat([shot.ids for shot in shots])
    used = {shot.example_id for shot in shots} - {None}
    contents = {tuple(shot.ids.tolist()) for shot in shots}
    result = torch.zeros(len(scores.example_id), dtype=torch.float64)
    rows: list[Encoded] = []
    kept: list[int] = []
    for row, example in examples_of(scores):
        ids, labels = example.input_ids, example.labels
        if example.example_id in used or tuple(body(ids, tokenizer).tolist()) in contents:
            result[row] = torch.nan
            continue
        if example.windows is not None:
            raise ConfigError(
                f"{who}: example {example.example_id} is read in windows (data.chunk), but a prefix would precede only "
                f"the first; remove {who} or data.chunk"
            )
        start = 1 if ids[0] == tokenizer.bos_token_id else 0
        whole = torch.cat([ids[:start], prefix, ids[start:]])
        if limit is not None and len(whole) > limit:
            raise ConfigError(
                f"{who}: the prefix has {len(prefix)} tokens and example {example.example_id} has {len(ids)}, but the "
                f"model reads {limit}; expected fewer or shorter shots"
            )
        unscored = torch.full((start + len(prefix),), IGNORED)
        rows.append(replace(example, input_ids=whole, labels=torch.cat([unscored, labels[start:]])))
        kept.append(row)
    result[kept] = probed_mean_logprob(prober, rows, scores)
    return result
