"""Random choices that track their entropy, and the bracket notation of `plans.py`."""

import functools
import math
import random
import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Dice:
    """Uniform draws that sum up their negative log-probability.

    Attributes:
        nats: sum of -log(probability) over all draws so far. For a text made by these draws it is an upper bound on
            the negative log-likelihood under the best possible model (two ways of drawing may give one text, never the
            reverse).
    """

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.nats = 0.0

    def pick(self, items: Sequence[T]) -> T:
        """Draw one item uniformly and count log(len(items)) nats."""
        self.nats += math.log(len(items))
        return items[self.rng.randrange(len(items))]

    def chance(self, p: float) -> bool:
        """Be true with probability p and count its negative log-probability."""
        hit = self.rng.random() < p
        self.nats -= math.log(p if hit else 1 - p)
        return hit


class Choice(NamedTuple):
    """`[a|b|]` after parsing: each option is a sequence of strings and choices."""

    options: tuple[tuple["str | Choice", ...], ...]


@functools.cache
def parse(plan: str) -> tuple[str | Choice, ...]:
    """Parse a plan into strings and choices.

    Raises:
        ValueError: a bracket is unbalanced, or `|` is outside brackets.

    >>> parse("a[b|]c")
    ('a', Choice(options=(('b',), ())), 'c')
    """
    stack: list[list[list[str | Choice]]] = [[[]]]
    for token in re.findall(r"[\[\]|]|[^\[\]|]+", plan):
        if token == "[":
            stack.append([[]])
        elif token in "|]" and len(stack) == 1:
            raise ValueError(f"stray {token!r} in plan {plan!r}")
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            options = stack.pop()
            stack[-1][-1].append(Choice(tuple(tuple(option) for option in options)))
        else:
            stack[-1][-1].append(token)
    if len(stack) > 1:
        raise ValueError(f"unclosed '[' in plan {plan!r}")
    return tuple(stack[0][0])


def expand(pieces: tuple[str | Choice, ...], dice: Dice) -> str:
    """Decide every choice; what is left has slots only.

    >>> expand(parse("x[y]"), Dice(random.Random(0)))
    'xy'
    """
    return "".join(piece if isinstance(piece, str) else expand(dice.pick(piece.options), dice) for piece in pieces)
