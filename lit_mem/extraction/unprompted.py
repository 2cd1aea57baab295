"""What a model writes with no text to go on from: from the token that begins a text, or from a few words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.functional.ends import End
from lit_mem.generation.decoding import decode
from lit_mem.types import Sampling


def start_of_text(tokenizer: Any) -> Tensor | None:
    """(T,) int64 tokens with which a text begins: the tokenizer's own habit, or else its BOS or end-of-text token.

    None where it has none of these.
    """
    ids = _without_end(tokenizer("")["input_ids"], tokenizer)
    for special in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if not ids and special is not None:
            ids = [special]
    return torch.tensor(ids, dtype=torch.int64) if ids else None


def prompts_of(texts: Iterable[str], tokenizer: Any, start: bool) -> list[Tensor]:
    """(T,) int64 tokens of prompts, as those of texts that go on.

    Args:
        texts: the prompts; one without a token begins a text.
        tokenizer: of the model.
        start: put the tokens that begin a text in front of them all, as a prompt of its own.
    """
    begin = start_of_text(tokenizer)
    found = [begin] if start else []
    for text in texts:
        ids = _without_end(tokenizer(text)["input_ids"], tokenizer)
        found.append(torch.tensor(ids, dtype=torch.int64) if ids else begin)
    return [tokens for tokens in found if tokens is not None]


def _without_end(ids: Sequence[int], tokenizer: Any) -> list[int]:
    """Without the end-of-text token that some tokenizers put behind each text."""
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
    """Texts that a model writes, without their prompts, by number.

    Args:
        model: a causal LM in eval mode.
        prompts: P tensors of token ids; number i goes on from prompt i modulo P.
        chosen: the numbers of the texts; what is drawn for one depends on its number and the seed alone.
        length: most tokens of each.
        tokenizer: decodes them.
        ends: tokens that end a text.
        sampling: None decodes greedily.
        token_budget: most tokens in a batch.
        advance: see `decode`.
    """
    asked = [prompts[i % len(prompts)] for i in chosen]
    lengths = [length] * len(asked)
    found = decode(model, asked, lengths, ends, sampling, token_budget, keys=chosen, advance=advance)
    return {
        i: str(tokenizer.decode(one.ids.tolist(), skip_special_tokens=True))
        for i, one in zip(chosen, found, strict=True)
    }
