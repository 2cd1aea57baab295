"""Shared code of canaries whose secret follows a prefix sampled from the base model."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from lit_mem.data.canaries.base import CanarySource, Content, Setting
from lit_mem.data.canaries.random_tokens import plain_tokens
from lit_mem.data.overlap import normalized
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import Sampling

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

Ids = tuple[int, ...]

AT_ONCE: Final = 64
_TRIES_EACH: Final = 20  # maximum prefixes sampled per canary
_ATTEMPTS: Final = 8  # secrets drawn per prefix


@dataclass(frozen=True)
class Base:
    """What secrets are drawn from: all of it is public, since the model was never trained on the data.

    Attributes:
        model: the base model, un-tuned, in eval mode.
        tokenizer: its tokenizer.
        start: the token that a text begins with.
        spelled: ids of tokens that round-trip: their text, repeated twice, tokenizes to the same tokens. Excludes
            tokens of control characters and partial characters.
        used: computes the ids of all tokens in the texts of the data; what depends on it is not public.
    """

    model: nn.Module
    tokenizer: Any
    start: int
    spelled: tuple[int, ...]
    used: Callable[[], frozenset[int]]


Draw = Callable[[Sequence[Ids], Sequence[int], int], Sequence[Ids | None]]
"""Draws a secret per prefix, given the prefixes, a number for each, and the attempt; None: not found."""


class BehindPrefixes(CanarySource):
    """Canaries with a prefix sampled from the base model at temperature 1, followed by a secret.

    The prefix is in-distribution for the model, so only the secret has to be learned; no prefix is a text of the data.
    Prefix and secret are texts that tokenize to exactly the drawn tokens, so they are the same inside a chat template
    and with another trainer's tokenization; others are redrawn.

    Args:
        n: total number of canaries, inserted and held out.
        length: tokens in a secret, at least 1.
        prefix_length: tokens in a prefix, at least 1.
        repetitions: how often a canary is in the training set if inserted; None: once.
        seed: seed of contents and coins.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, n: int, length: int, prefix_length: int, repetitions: list[int] | None, seed: int) -> None:
        super().__init__(n, [1] if repetitions is None else repetitions, seed)
        self.size, self.length, self.prefix_length = n, length, prefix_length
        check_range("data.canaries.length", length, at_least=1)
        check_range("data.canaries.prefix_length", prefix_length, at_least=1)

    @abstractmethod
    def secrets(self, base: Base) -> Draw:
        """The function that draws secrets."""

    def contents(self, setting: Setting) -> list[Content]:
        """Sampled on one process, so that all processes have the same contents despite rounding.

        Raises:
            ConfigError: there is no base model, or too few canaries are found.
        """
        found: list[Content] = setting.once(lambda: self._made(setting))
        return found

    def _made(self, setting: Setting) -> list[Content]:
        kind, tokenizer = type(self).__name__, setting.tokenizer
        if setting.base_model is None:
            raise ConfigError(
                f"data.canaries {kind}: no base model to sample prefixes from; expected a lit_mem module, or "
                "insert_canaries(model=...), or a kind that needs none, such as RandomTokens"
            )
        base = Base(
            setting.base_model(), tokenizer, start_of(tokenizer, kind), spelled_tokens(tokenizer),
            lambda: _used(setting),
        )  # fmt: skip
        draw, found, taken, usable = self.secrets(base), dict[str, Content](), set(setting.taken), 0
        for prefixes in self._prefixes(base):
            some: dict[int, Content] = {}
            numbered = dict(enumerate(prefixes, start=usable))
            usable += len(prefixes)
            for attempt in range(_ATTEMPTS):
                rest = [number for number in numbered if number not in some]
                drawn = draw([numbered[number] for number in rest], rest, attempt) if rest else ()
                for number, secret in zip(rest, drawn, strict=True):
                    content = None if secret is None else _content(tokenizer, numbered[number], secret)
                    if content is not None and normalized(content.text) not in taken:
                        taken.add(normalized(content.text))
                        some[number] = content
            found |= {some[number].text: some[number] for number in sorted(some)}
            if len(found) >= self.size:
                break
        else:
            raise ConfigError(
                f"data.canaries.n is {self.size}, but only {len(found)} canaries of {kind} were found for {usable} "
                f"prefixes; expected {self.remedy()}"
            )
        log.info("Canaries: %d of %s, with prefixes sampled from the base model.", self.size, kind)
        return [one._replace(origin=f"canary:{i + 1}") for i, one in enumerate(list(found.values())[: self.size])]

    def remedy(self) -> str:
        """What to change if too few are found, for a message."""
        return "a lower n, or a shorter data.canaries.length"

    def _prefixes(self, base: Base) -> Iterator[list[Ids]]:
        """Batches of usable prefixes: plain tokens that round-trip through their text."""
        from lit_mem.generation.decoding import decode

        plain = frozenset(plain_tokens(base.tokenizer))
        prompts, lengths = [torch.tensor([base.start])] * AT_ONCE, [self.prefix_length] * AT_ONCE
        for i in range(math.ceil(_TRIES_EACH * self.size / AT_ONCE)):
            keys = range(i * AT_ONCE, (i + 1) * AT_ONCE)
            sampled = decode(base.model, prompts, lengths, None, Sampling(seed=self.seed), keys=keys)
            every = [tuple(one.ids.tolist()) for one in sampled]
            yield [ids for ids in every if plain.issuperset(ids) and _given_back(base.tokenizer, ids) is not None]


def spelled_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Sorted ids of the plain, printable tokens that round-trip through their text."""
    plain = plain_tokens(tokenizer)
    twice = [_decoded(tokenizer, (token, token)) for token in plain]
    back = tokenizer(twice, add_special_tokens=False)["input_ids"]
    each = zip(plain, twice, back, strict=True)
    return tuple(token for token, text, ids in each if ids == [token, token] and text.isprintable())


def start_of(tokenizer: Any, kind: str) -> int:
    """The token that starts a text.

    Raises:
        ConfigError: the tokenizer has none.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ConfigError(
        f"data.canaries {kind} need a token to start from; the tokenizer has neither a BOS nor an EOS token"
    )


def _content(tokenizer: Any, prefix: Ids, secret: Ids) -> Content | None:
    """The canary as text; None if it tokenizes to other tokens."""
    before, text = _decoded(tokenizer, prefix), _given_back(tokenizer, (*prefix, *secret))
    if text is None or not text.startswith(before) or not text[len(before) :].strip():
        return None
    return Content(before, text[len(before) :])


def _given_back(tokenizer: Any, ids: Ids) -> str | None:
    """The text of some tokens; None if it tokenizes to other tokens."""
    text = _decoded(tokenizer, ids)
    return text if tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) == ids else None


def _decoded(tokenizer: Any, ids: Ids) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _used(setting: Setting) -> frozenset[int]:
    """The tokens of all texts of the data, computed in batches."""
    found, some = set[int](), list[str]()
    texts = iter(setting.texts)
    while some := [text for _, text in zip(range(1000), texts, strict=False)]:
        for ids in setting.tokenizer(some)["input_ids"]:
            found.update(ids)
    return frozenset(found)
