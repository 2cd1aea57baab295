"""Which tokens the goldfish loss leaves out: the same ones wherever the words before them are the same."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

_MULTIPLIER: Final = 6364136223846793005  # of Knuth's MMIX generator
_MIX: Final = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_BITS: Final = 31


def goldfish_dropped(input_ids: Tensor, k: int, context: int) -> Tensor:
    """Tokens that are left out of the training loss: one in k, chosen by a hash of the tokens before each.

    A passage that stands in several texts loses the same tokens everywhere, so that no other text fills the gaps; the
    model must guess there, and a long passage is not written out word for word.

    As the paper has it, the hash is of the `context` tokens before the token, in their order. Near the start of a text
    it is of all there are, so that short texts have gaps too (the paper's begin after `context` tokens). The authors'
    own code hashes the token itself too, and by a product, which is blind to order.

    Args:
        input_ids: (B, T) int64, padded on the right.
        k: one in k is left out.
        context: how many tokens before a token decide, h in the paper.

    Returns:
        (B, T) bool. What it says of padding, and of the first token, which nothing precedes, means nothing.

    Source: Hans et al. 2024, "Be like a Goldfish, Don't Memorize! Mitigating Memorization in Generative LLMs"
    (arXiv 2406.10209), section 3.1: k = 4, h = 13.
    """
    # Whole numbers that overflow wrap around, on every device alike.
    mixed = torch.zeros_like(input_ids)
    for distance in range(min(context, input_ids.shape[1] - 1), 0, -1):
        before = torch.zeros_like(input_ids)
        before[:, distance:] = input_ids[:, :-distance] + 1  # 0: there is none
        mixed = mixed * _MULTIPLIER + before
    # The low bits of products of whole numbers depend on low bits alone, so the high ones are folded in.
    for _ in range(2):
        mixed = (mixed ^ ((mixed >> 32) & 0xFFFFFFFF)) * _MIX
    dropped: Tensor = ((mixed >> (63 - _BITS)) & (2**_BITS - 1)) % k == 0
    return dropped
