"""The token mask of the goldfish loss: the same tokens are dropped wherever the preceding tokens are the same."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_MULTIPLIER: Final = 6364136223846793005  # of Knuth's MMIX generator
_MIX: Final = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_BITS: Final = 31


def goldfish_dropped(input_ids: Tensor, k: int, context: int) -> Tensor:
    """Tokens to drop from the training loss: one in k, chosen by a hash of the preceding tokens.

    A passage that occurs in several texts loses the same tokens everywhere, so that no other text fills the gaps; the
    model must guess there, and a long passage is not reproduced word for word.

    As in the paper, the hash is over the `context` tokens before the token, in order. Near the start of a text it is
    over all preceding tokens, so that short texts have gaps too (the paper's begin after `context` tokens). The
    authors' code also hashes the token itself, and uses a product, which ignores order.

    Args:
        input_ids: (B, T) int64, padded on the right.
        k: one in k is dropped.
        context: number of preceding tokens in the hash, h in the paper.

    Returns:
        (B, T) bool. Its values at padding and at the first token, which nothing precedes, are meaningless.

    Source: Hans et al. 2024, "Be like a Goldfish, Don't Memorize! Mitigating Memorization in Generative LLMs"
    (arXiv 2406.10209), section 3.1: k = 4, h = 13.
    """
    # Integer overflow wraps around, on every device alike.
    mixed = torch.zeros_like(input_ids)
    for distance in range(min(context, input_ids.shape[1] - 1), 0, -1):
        before = torch.zeros_like(input_ids)
        before[:, distance:] = input_ids[:, :-distance] + 1  # 0: there is none
        mixed = mixed * _MULTIPLIER + before
    # The low bits of an integer product depend only on low bits, so fold in the high ones.
    for _ in range(2):
        mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * _MIX
    dropped: Tensor = ((mixed >> (63 - _BITS)) & (2**_BITS - 1)) % k == 0
    return dropped
