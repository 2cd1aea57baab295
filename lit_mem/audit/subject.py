"""Interface of what is measured: a tuned model with its tokenizer and its frozen reference, for any trainer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from lit_mem.data.groups import Groups
from lit_mem.types import Prober

Advance = Callable[[int], None]
"""Receives the number of tokens generated since the last call."""


class Subject(Protocol):
    """A model as seen by measures.

    Attributes:
        name: name of the object that holds the model, for messages.
        ends: ids of the tokens at which its decoding stops.
    """

    name: str
    ends: frozenset[int]

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the model."""
        ...

    @property
    def language_model(self) -> nn.Module:
        """The tuned Hugging Face model, or its peft wrapper."""
        ...

    def lacks(self, *names: str) -> list[str]:
        """Which of these are not available: "tokenizer", "language_model", "reference_context"."""
        ...

    def prober(self, who: str) -> Prober:
        """The interface for attacks that need more than the scoring pass.

        Args:
            who: what needs it, for messages.

        Raises:
            ConfigError: it is not available.
        """
        ...

    def every_text(self) -> Iterable[str]:
        """All texts of the run, prompts included, scored or not; () if not known. No displayed name may reveal one."""
        ...

    def all_texts(self, member: bool) -> Collection[str] | None:
        """Members, or held-out texts (test texts while testing), prompts included, scored or not.

        The same on every process, in the same order, and can be iterated repeatedly; None if not known. Truncated
        texts are given as trained on.
        """
        ...

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference as a callable model; in eval mode, without gradients."""
        ...

    def tuned_is_reference(self) -> bool:
        """Whether both give bit-identical scores, as before the first step; False if not known."""
        ...

    def forward_context(self) -> AbstractContextManager[None]:
        """The precision in which the model is called outside the scoring pass."""
        ...

    def lockstep(self) -> AbstractContextManager[None]:
        """Lets ranks call a sharded model different numbers of times without deadlock."""
        ...

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Show how many of `total` tokens are generated."""
        ...

    def groups(self) -> Groups | None:
        """Number of rows of each person or document; None if not known."""
        ...

    def privacy_claim(self) -> tuple[float, float] | None:
        """ε and δ guaranteed by training so far; None if training is not private."""
        ...
