"""The options of splitting long texts into windows (see `lit_mem.data.chunks`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lit_mem.errors import ConfigError, check_range, options_of


@dataclass(frozen=True)
class Chunk:
    """How texts longer than `data.max_length` are split into windows.

    Attributes:
        tokens: tokens per window, including a prepended BOS token; None: `data.max_length`.
        stride: new tokens per window; the others are context, so that a token has at least tokens − stride tokens of
            context. None: half of `tokens`. Equal to `tokens`: windows do not overlap, and the first token of each has
            no context except a BOS token (or one token, for a tokenizer without BOS).
    """

    tokens: int | None = None
    stride: int | None = None

    def sizes(self, max_length: int) -> tuple[int, int]:
        """Tokens and stride.

        Args:
            max_length: length above which a text is split into windows.

        Raises:
            ConfigError: a value is out of range.
        """
        for name, value in (("tokens", self.tokens), ("stride", self.stride)):
            if not isinstance(value, int | None):
                raise ConfigError(f"data.chunk.{name} is {value!r}; expected an integer")
        check_range("data.chunk.tokens", self.tokens, at_least=2, or_null=True)
        tokens = max_length if self.tokens is None else self.tokens
        check_range("data.chunk.tokens", tokens, at_most=max_length, hint=", which is data.max_length")
        check_range("data.chunk.stride", self.stride, at_least=1, or_null=True)
        stride = max(1, tokens // 2) if self.stride is None else self.stride
        check_range("data.chunk.stride", stride, at_most=tokens, hint=", which is data.chunk.tokens")
        return tokens, stride


def chunk_of(given: Chunk | Mapping[str, Any] | None) -> Chunk | None:
    """The option as an instance, built from a mapping if needed.

    Raises:
        ConfigError: an option name is unknown, or `given` has another type.
    """
    return options_of(Chunk, given, "data.chunk")
