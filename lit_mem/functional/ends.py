"""End tokens: where generated text ends, and so which part of a true suffix can be extracted.

One rule for all extraction measures: a true suffix ends before its first end token. Decoding stops there, so tokens
after it are never generated, and are neither prompted for nor credited. The prefix is given as it is, including end
tokens, such as the turns of a chat before the prompted one. A suffix also ends where its run of scored tokens ends:
after an assistant turn another speaker follows. Measures without a prefix score each run separately.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from lit_mem.errors import LitMemError

End = int | Collection[int] | None
"""One end token, several, or none."""


def as_ends(eos: End) -> frozenset[int]:
    """End tokens as a set.

    >>> as_ends(2), as_ends(None), sorted(as_ends([2, 5]))
    (frozenset({2}), frozenset(), [2, 5])
    """
    if eos is None:
        return frozenset()
    return frozenset([eos]) if isinstance(eos, int) else frozenset(int(token) for token in eos)


def end_tokens(module: Any) -> frozenset[int]:
    """Ids that end a model's generation: its tokenizer's end-of-text token, and all that `generate` stops at.

    A chat model has several: the end of a turn and the end of a text. Empty if the module has neither a tokenizer
    nor a model with a generation configuration.
    """
    return as_ends(_found(module, "tokenizer", "eos_token_id")) | as_ends(
        _found(module, "language_model", "generation_config", "eos_token_id")
    )


def _found(value: Any, *names: str) -> Any:
    for name in names:
        try:
            value = getattr(value, name, None)
        except LitMemError:  # the model is not built yet, or comes without a tokenizer
            return None
    return value


def is_end(ids: Tensor, ends: Collection[int]) -> Tensor:
    """Bool of the shape of `ids`: True at end tokens."""
    return torch.isin(ids, torch.tensor(sorted(ends), dtype=ids.dtype, device=ids.device))


def ends_in(batch: Any, ends: Collection[int]) -> Tensor | None:
    """(B, T) bool: True at end tokens of a batch; None if it has no `input_ids`, as a custom batch may."""
    return is_end(batch["input_ids"], ends) if "input_ids" in batch else None


def own_tokens(scored: Tensor, ends: Tensor | None) -> Tensor:
    """(B, T) bool on the CPU: the scored tokens, without a final end token.

    Args:
        scored: (B, T) bool.
        ends: (B, T) bool, True at end tokens; None: unknown.
    """
    scored = scored.cpu()
    if ends is None:
        return scored
    last = scored & (scored.flip(1).cumsum(dim=1).flip(1) == 1)
    return scored & ~(last & ends.cpu())


def before_end(suffix: Tensor, ends: Tensor | None) -> Tensor:
    """(B, T) bool on the CPU: in each run of suffix tokens, those before its first end token.

    Args:
        suffix: (B, T) bool; several runs in a row are turns of one speaker in a conversation, each given the other
            speaker's turns.
        ends: as for `own_tokens`.
    """
    suffix = suffix.cpu()
    if ends is None:
        return suffix
    inside = suffix & ends.cpu()
    met = inside.cumsum(dim=1)
    before = torch.where(_begins(suffix), met - inside.long(), 0).cummax(dim=1).values  # up to the start of the run
    return suffix & (met == before)


def first_run(tokens: Tensor) -> Tensor:
    """(B, T) bool: of the tokens in each row, (B, T) bool, those up to the first gap."""
    return tokens & (_begins(tokens).cumsum(dim=1) == 1)


def _begins(tokens: Tensor) -> Tensor:
    """(B, T) bool: where a run begins."""
    begins = tokens.clone()
    begins[:, 1:] &= ~tokens[:, :-1]
    return begins
