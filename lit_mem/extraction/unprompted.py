"""Generate text without a true prefix: from the BOS token, or from a few words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.functional.ends import End
from lit_mem.generation.decoding import decode
from lit_mem.types import Sampling


def start_of_text(tokenizer: Any) -> Tensor | None:
    """(T,) int64 tokens with which a text starts: those the tokenizer adds, or else its BOS or end-of-text token.

    None without any of these.
    """
    ids = _without_end(tokenizer("")["input_ids"], tokenizer)
    for special in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if not ids and special is not None:
            ids = [special]
    return torch.tensor(ids, dtype=torch.int64) if ids else None


def prompts_of(texts: Iterable[str], tokenizer: Any, start: bool) -> list[Tensor]:
    """(T,) int64 tokens of prompts, without an end-of-text token.

    Args:
        texts: the prompts; one without tokens is replaced by the start tokens.
        tokenizer: tokenizer of the model.
        start: add the start tokens as a first prompt of their own.
    """
    begin = start_of_text(tokenizer)
    found = [begin] if start else []
    for text in texts:
        ids = _without_end(tokenizer(text)["input_ids"], tokenizer)
        found.append(torch.tensor(ids, dtype=torch.int64) if ids else begin)
    return [tokens for tokens in found if tokens is not None]


def _without_end(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Remove the end-of-text token that some tokenizers append."""
    found = list(ids)
    return found[:-1] if len(found) > 1 and found[-1] == tokenizer.eos_token_id else found


def written(
    model: nn.Module,
    prompts: Sequence[Tensor],
    chosen: Sequence[int],
    length: int,
    tokenizer: Any,
    ends: End,
    sampling: Sampling | None,
    token_budget: int,
    advance: Callable[[int], None],
) -> dict[int, str]:
    """Generate texts, without their prompts, by number.

    Args:
        model: a causal LM in eval mode.
        prompts: P tensors of token ids; number i continues prompt i modulo P.
        chosen: the numbers of the texts; random draws of one depend only on its number and the seed.
        length: maximum number of tokens of each.
        tokenizer: decodes them.
        ends: tokens that end a text.
        sampling: sampling options; None decodes greedily.
        token_budget: maximum number of tokens in a batch.
        advance: see `decode`.
    """
    continued = [prompts[i % len(prompts)] for i in chosen]
    lengths = [length] * len(continued)
    found = decode(model, continued, lengths, ends, sampling, token_budget, keys=chosen, advance=advance)
    return {
        i: str(tokenizer.decode(one.ids.tolist(), skip_special_tokens=True))
        for i, one in zip(chosen, found, strict=True)
    }
