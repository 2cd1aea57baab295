"""The canary interface, and what all kinds share: coins, repetitions, and exclusion of the data's own texts."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from lit_mem.data.overlap import normalized
from lit_mem.errors import ConfigError, check_range

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

_ATTEMPTS: Final = 100


class Content(NamedTuple):
    """The content of one canary.

    Attributes:
        prefix: text that the model is prompted with; "" if there is none.
        secret: the text after it; never empty.
        ids: all its tokens, if it was generated as tokens instead of text: without special tokens; tokenizing the text
            may give others.
        origin: where it came from, for messages.
        group: its group, for metrics by group; "" if there are no groups.
    """

    prefix: str
    secret: str
    ids: tuple[int, ...] | None = None
    origin: str = ""
    group: str = ""

    @property
    def text(self) -> str:
        """Prefix and secret together."""
        return self.prefix + self.secret


class Canary(NamedTuple):
    """One canary, inserted or held out.

    Attributes:
        content: its content.
        repetitions: how often it is in the training set if inserted.
        inserted: the result of its coin: whether it is inserted.
    """

    content: Content
    repetitions: int
    inserted: bool


def here(compute: Callable[[], T]) -> T:
    """Call `compute`: the `once` of a single process."""
    return compute()


@dataclass(frozen=True)
class Setting:
    """The context that canaries are generated for.

    Attributes:
        tokenizer: tokenizer of the trained model.
        texts: texts of all sets of the data; no canary equals one of them.
        base_model: loads the un-tuned base model in eval mode, for kinds that sample from it; None: not available.
        once: computes a value on one process and broadcasts it.
    """

    tokenizer: Any
    texts: Iterable[str] = ()
    base_model: Callable[[], nn.Module] | None = None
    once: Callable[[Callable[[], Any]], Any] = here
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", {normalized(text) for text in self.texts})


class CanarySource(ABC):
    """A kind of canary: one file per kind, set in a configuration by its class path.

    Each canary is inserted by its own fair coin, so the number inserted is random, as the audit's bound requires.
    Coins, repetitions and content are drawn from the seed independently: content and repetitions reveal nothing about
    the coin, and a larger n does not change the first canaries.

    Args:
        n: total number of canaries, inserted and held out; None: all available.
        repetitions: how often a canary is in the training set if inserted; canaries cycle through this list. None: 1, 4
            and 16.
        seed: seed of contents and coins.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, n: int | None, repetitions: list[int] | None, seed: int) -> None:
        self.n, self.seed = n, seed
        self.repetitions = [1, 4, 16] if repetitions is None else repetitions
        check_range("data.canaries.n", n, at_least=2, or_null=True)
        check_range("data.canaries.seed", seed, at_least=0)
        if not self.repetitions or min(self.repetitions) < 1:
            raise ConfigError(
                f"data.canaries.repetitions is {self.repetitions}; expected at least one number, each 1 or more"
            )

    def make(self, setting: Setting) -> list[Canary]:
        """All canaries; the same for the same seed on every machine.

        Raises:
            ConfigError: there are not enough distinct ones, or one equals a text of the data.
            DataError: a file of canaries is invalid.
        """
        return [
            Canary(content, self.repetitions[i % len(self.repetitions)], coin(self.seed, i))
            for i, content in enumerate(self.contents(setting))
        ]

    def check_model(self, model: Any) -> None:  # noqa: B027  (most kinds have no requirements)
        """Reject a model that cannot learn such canaries, before training.

        Raises:
            ConfigError: the model cannot learn them.
        """

    @abstractmethod
    def contents(self, setting: Setting) -> list[Content]:
        """The contents of the canaries: distinct, not texts of the data, and independent of the coins."""

    def drawn(self, n: int, setting: Setting, draw: Callable[[random.Random], Content]) -> list[Content]:
        """Draw n contents, redrawing any that repeats an earlier one or a text of the data.

        Raises:
            ConfigError: not enough were found.
        """
        found: dict[str, Content] = {}
        for i in range(n):
            for attempt in range(_ATTEMPTS):
                content = draw(dice(self.seed, "content", i, attempt))._replace(origin=f"canary:{i + 1}")
                key = normalized(content.text)
                if key not in found and key not in setting.taken:
                    found[key] = content
                    break
            else:
                raise ConfigError(
                    f"data.canaries.n is {n}, but only {len(found)} distinct ones that are not texts of the data were "
                    f"found in {_ATTEMPTS} draws each; expected a lower n, or templates with more possible values"
                )
        return list(found.values())


def dice(seed: int, *labels: object) -> random.Random:
    """A separate random generator for each label, the same on every machine."""
    return random.Random(int.from_bytes(_digest(seed, *labels), "big"))


def coin(seed: int, number: int) -> bool:
    """The fair coin of the canary with this number.

    >>> sum(coin(0, i) for i in range(1000))
    501
    """
    return bool(_digest(seed, "coin", number)[0] & 1)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()
