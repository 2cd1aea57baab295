"""Canaries of random tokens, which cannot be guessed: recommended for the audit."""

from __future__ import annotations

import random
from typing import Any

from lit_mem.data.canaries.base import CanarySource, Content, Setting
from lit_mem.errors import check_range


class RandomTokens(CanarySource):
    """Tokens drawn independently and uniformly from the tokenizer's vocabulary, without special tokens.

    No model expects them and they are independent, so what the model knows of one comes from that one alone. For the
    audit insert each once (`repetitions: [1]`, the default here) and use many: 500 or more.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in each, at least 4.
        repetitions: how often a canary is in the training set if inserted; canaries cycle through this list.
        seed: seed of contents and coins.
    """

    def __init__(self, n: int = 1000, length: int = 32, repetitions: list[int] | None = None, seed: int = 0) -> None:
        super().__init__(n, [1] if repetitions is None else repetitions, seed)
        check_range("data.canaries.length", length, at_least=4)
        self.size, self.length = n, length

    def contents(self, setting: Setting) -> list[Content]:
        """Random tokens, and the text that they decode to."""
        plain = plain_tokens(setting.tokenizer)

        def draw(dice: random.Random) -> Content:
            ids = tuple(plain[dice.randrange(len(plain))] for _ in range(self.length))
            return Content("", str(setting.tokenizer.decode(list(ids))), ids)

        return self.drawn(self.size, setting, draw)


def plain_tokens(tokenizer: Any) -> list[int]:
    """Sorted ids of all tokens that are neither special nor added later.

    Added tokens may not have a row in the model's embedding.
    """
    left_out = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return [token for token in range(tokenizer.vocab_size) if token not in left_out]
