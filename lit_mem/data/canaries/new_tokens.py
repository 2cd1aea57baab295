"""Canaries whose secret consists of tokens that do not occur in the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from lit_mem.data.canaries.base import dice
from lit_mem.data.canaries.behind_prefixes import Base, BehindPrefixes, Draw, Ids
from lit_mem.errors import ConfigError

_RESERVED: Final = re.compile("reserved|unused|extra_id", re.IGNORECASE)
"""Markers in the names of reserved tokens of released models, which have rows in the embedding."""


class NewTokens(BehindPrefixes):
    """A prefix sampled from the base model, followed by tokens that do not occur in the data.

    No two canaries, inserted or held out, share a secret token, so what training does to a token comes from its canary
    only, and no other text reverses it. The tokens are from the tokenizer's vocabulary, including reserved ones (by
    name); none is added to the model. The unused tokens are determined from the data: the secrets reveal that no text
    contains them, and nothing else about it.

    What is learned about a new token is stored in its rows of the embedding and the output layer. If neither is
    trained, as with plain LoRA, these canaries are rejected.

    Args:
        n: total number of canaries, inserted and held out; needs n times `length` unused tokens.
        length: tokens in a secret, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        repetitions: how often a canary is in the training set if inserted; None: once, as the audit requires.
        seed: seed of contents and coins.

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
        """Drawn from the unused tokens without replacement, in random order.

        Raises:
            ConfigError: there are too few unused tokens.
        """
        reserved = [
            token
            for token, one in base.tokenizer.added_tokens_decoder.items()
            if _RESERVED.search(str(one)) and token not in base.tokenizer.all_special_ids
        ]
        unused = sorted({*base.spelled, *reserved} - base.used())
        if len(unused) < self.size * self.length:
            raise ConfigError(
                f"data.canaries.n is {self.size} with length {self.length} each, but only {len(unused)} tokens of the "
                f"vocabulary are in no text of the data; expected data.canaries.n of {len(unused) // self.length} or "
                "fewer, or another kind, such as Unigram"
            )
        dice(self.seed, "new tokens").shuffle(unused)

        def draw(prefixes: Sequence[Ids], numbers: Sequence[int], attempt: int) -> list[Ids | None]:
            hands = [tuple(unused[number * self.length : (number + 1) * self.length]) for number in numbers]
            return [hand if len(hand) == self.length and attempt == 0 else None for hand in hands]

        return draw

    def check_model(self, model: Any) -> None:
        """Reject a model that cannot learn new tokens.

        Raises:
            ConfigError: neither its input embeddings nor its output layer are trained.
        """
        layers = [getter() for name in _TABLES if (getter := getattr(model, name, None)) is not None]
        if not any(p.requires_grad for layer in layers if layer is not None for p in layer.parameters()):
            raise ConfigError(
                "data.canaries NewTokens: the embeddings are frozen, so the model cannot learn tokens that it has not "
                "seen; expected a model.adapter that trains them, such as FullFineTuning or HeadOnly (for peft, one "
                "with modules_to_save), or another kind, such as data.canaries Unigram"
            )


_TABLES: Final = ("get_input_embeddings", "get_output_embeddings")
