"""What is measured: a tuned model with its tokenizer and its frozen reference, whatever trains it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import nn

from lit_mem.data.groups import Groups
from lit_mem.types import Prober

Advance = Callable[[int], None]
"""Takes the number of tokens that were generated since the last call."""


class Subject(Protocol):
    """A model as measures see it.

    Attributes:
        name: of what holds the model, for messages.
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
        """Which of these it cannot give: "tokenizer", "language_model", "reference_context"."""
        ...

    def prober(self, who: str) -> Prober:
        """What an attack uses that reads more than the scoring pass.

        Args:
            who: needs it, for messages.

        Raises:
            ConfigError: it cannot be given.
        """
        ...

    def every_text(self) -> Iterable[str]:
        """All texts of the run, prompts too, scored or not; () where they are not known. No name may give one away."""
        ...

    def all_texts(self, member: bool) -> Collection[str] | None:
        """Members, or held-out texts (while testing, test texts), prompts too, whether scored or not.

        The same on every process, in one order, read as often as wanted; None: not known. What is trained on of a text
        that is cut.
        """
        ...

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference as a model to call; in eval mode, without gradients."""
        ...

    def tuned_is_reference(self) -> bool:
        """Whether both give the same numbers to the last bit, as before the first step; False where not known."""
        ...

    def forward_context(self) -> AbstractContextManager[None]:
        """The precision in which the model is called outside the scoring pass."""
        ...

    def lockstep(self) -> AbstractContextManager[None]:
        """While ranks call the model different numbers of times; where its base is spread over them, one waits."""
        ...

    def progress(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Show how many of `total` tokens are generated."""
        ...

    def groups(self) -> Groups | None:
        """How many rows each person or document has; None where it is not known."""
        ...

    def privacy_claim(self) -> tuple[float, float] | None:
        """ε and δ to which training has kept so far; None where it is not private."""
        ...
