"""The contract of a kind of canary, and what all kinds share: coins, repetitions, and no text of the data."""

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
    """What one canary says.

    Attributes:
        prefix: text that the model is prompted with; "" where the text has no such part.
        secret: the text after it; never empty.
        ids: the tokens of the whole, where it was made of tokens and not of text: special tokens left out, and
            not to be had by tokenizing the text.
        origin: where it came from, for messages.
        group: what it was made to be like, for metrics by group; "" where there are no groups.
    """

    prefix: str
    secret: str
    ids: tuple[int, ...] | None = None
    origin: str = ""
    group: str = ""

    @property
    def text(self) -> str:
        """The whole of it."""
        return self.prefix + self.secret


class Canary(NamedTuple):
    """One canary, in or out.

    Attributes:
        content: what it says.
        repetitions: how often it stands in the training set if it is in.
        inserted: its coin: whether it is in.
    """

    content: Content
    repetitions: int
    inserted: bool


def here(compute: Callable[[], T]) -> T:
    """What it computes, where there is one process."""
    return compute()


@dataclass(frozen=True)
class Setting:
    """What canaries are made for.

    Attributes:
        tokenizer: of the model that is trained.
        texts: those of the data, of all sets; none of them will be a canary.
        base_model: loads the base model, un-tuned, in eval mode, for kinds that sample from it; None: there is none.
        once: computes something on one process and gives it to all.
    """

    tokenizer: Any
    texts: Iterable[str] = ()
    base_model: Callable[[], nn.Module] | None = None
    once: Callable[[Callable[[], Any]], Any] = here
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taken", {normalized(text) for text in self.texts})


class CanarySource(ABC):
    """A kind of canary: one small file a kind, named in a configuration by its path.

    Each canary is inserted by its own fair coin, so that the number inserted is random, as the audit's bound needs.
    Coins, repetitions and content are drawn from the seed apart from one another: content and repetitions show nothing
    of the coin, and more canaries leave the first ones as they are.

    Args:
        n: how many canaries there are, in and out together; None: as many as there are.
        repetitions: how often a canary stands in the training set if it is in. The canaries take turns in this list.
            None: 1, 4 and 16.
        seed: another seed, other canaries and other coins.

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
        """All canaries, the same for the same seed on every machine.

        Raises:
            ConfigError: there are no so many different ones, or one is a text of the data.
            DataError: a file that canaries come from is not what was expected.
        """
        return [
            Canary(content, self.repetitions[i % len(self.repetitions)], coin(self.seed, i))
            for i, content in enumerate(self.contents(setting))
        ]

    def check_model(self, model: Any) -> None:  # noqa: B027  (most kinds ask nothing of it)
        """Reject a model that cannot learn such canaries, before it is trained.

        Raises:
            ConfigError: it cannot.
        """

    @abstractmethod
    def contents(self, setting: Setting) -> list[Content]:
        """What the canaries say: all different, none a text of the data, and none chosen by a coin."""

    def drawn(self, n: int, setting: Setting, draw: Callable[[random.Random], Content]) -> list[Content]:
        """So many contents of `draw`, each drawn again while it is one before it or a text of the data.

        Raises:
            ConfigError: there seem to be no so many.
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
                    f"data.canaries.n is {n}, but only {len(found)} different ones that are no texts of the data "
                    f"were found in {_ATTEMPTS} draws for each; expected fewer, or ones of more possible forms"
                )
        return list(found.values())


def dice(seed: int, *labels: object) -> random.Random:
    """A generator of its own for each thing that is drawn, the same on every machine."""
    return random.Random(int.from_bytes(_digest(seed, *labels), "big"))


def coin(seed: int, number: int) -> bool:
    """The fair coin of the canary of this number.

    >>> sum(coin(0, i) for i in range(1000))
    501
    """
    return bool(_digest(seed, "coin", number)[0] & 1)


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()
