"""Canaries whose secret is of tokens that no text of the data has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from lit_mem.data.canaries.base import dice
from lit_mem.data.canaries.behind_prefixes import Base, BehindPrefixes, Draw, Ids
from lit_mem.errors import ConfigError

_RESERVED: Final = re.compile("reserved|unused|extra_id", re.IGNORECASE)
"""What names of added tokens have that a released model keeps for later, with rows in its embedding."""


class NewTokens(BehindPrefixes):
    """A prefix that the base model writes, and behind it tokens of its own, which no text of the data has.

    No two canaries share a token of their secrets, in or out, so that what training does to a token comes from its
    canary alone, and nothing else undoes it. The tokens are of the tokenizer's vocabulary, and such as it reserves (by
    their names); none is added to the model. Which tokens the data has is read off the data: the secrets show that no
    text has them, and nothing else of it.

    What is learned of a new token lies in its rows of the embedding and of the output layer. Where neither is trained,
    as with plain LoRA, these canaries are refused.

    Args:
        n: how many canaries, in and out together; as many unused tokens are needed, times `length`.
        length: tokens in a secret, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        repetitions: how often a canary stands in the training set if it is in; None: once, as the audit needs.
        seed: of contents and coins.

    Source: Panda et al. 2025, "Privacy Auditing of Large Language Models" (arXiv 2503.06808), which adds tokens to the
    vocabulary, one for each canary, at its end.
    """

    def __init__(
        self,
        n: int = 200,
        length: int = 1,
        prefix_length: int = 16,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, length, prefix_length, repetitions, seed)

    def secrets(self, base: Base) -> Draw:
        """Dealt from the unused tokens, in an order of their own.

        Raises:
            ConfigError: there are too few.
        """
        reserved = [
            token
            for token, one in base.tokenizer.added_tokens_decoder.items()
            if _RESERVED.search(str(one)) and token not in base.tokenizer.all_special_ids
        ]
        unused = sorted({*base.spelled, *reserved} - base.used())
        if len(unused) < self.size * self.length:
            raise ConfigError(
                f"data.canaries.n is {self.size}, of length {self.length} each, and {len(unused)} tokens of the "
                f"vocabulary are in no text of the data; expected data.canaries.n of {len(unused) // self.length} or "
                "fewer, or another kind, such as Unigram"
            )
        dice(self.seed, "new tokens").shuffle(unused)

        def draw(prefixes: Sequence[Ids], numbers: Sequence[int], attempt: int) -> list[Ids | None]:
            hands = [tuple(unused[number * self.length : (number + 1) * self.length]) for number in numbers]
            return [hand if len(hand) == self.length and attempt == 0 else None for hand in hands]

        return draw

    def check_model(self, model: Any) -> None:
        """Reject a model that learns nothing of new tokens.

        Raises:
            ConfigError: neither its input embeddings nor its output layer are trained.
        """
        layers = [getter() for name in _TABLES if (getter := getattr(model, name, None)) is not None]
        if not any(p.requires_grad for layer in layers if layer is not None for p in layer.parameters()):
            raise ConfigError(
                "data.canaries NewTokens: the embeddings are frozen, so that the model learns nothing of tokens that "
                "it has not seen; expected a model.adapter that trains them, such as FullFineTuning or HeadOnly (of "
                "peft, one with modules_to_save), or another kind, such as data.canaries Unigram"
            )


_TABLES: Final = ("get_input_embeddings", "get_output_embeddings")
