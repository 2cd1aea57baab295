"""What `--data.source.help` shows without the name of a class: the classes that the option takes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator


def classes(option: str, bases: Iterable[type]) -> str:
    """The classes that an option takes, a line each, and how to see the options of one.

    Args:
        option: with its ending, such as "--data.source.help".
        bases: whose subclasses it takes.

    >>> import torch
    >>> print(classes("--x.help", [torch.optim.SGD]))
    Classes that --x takes:
      SGD  Implements stochastic gradient descent (optionally with momentum).
    Options of one of them: --x.help SGD
    """
    found = {each.__name__: each for base in bases for each in _with_subclasses(base) if _is_offered(each)}
    width = max(map(len, found), default=0)
    lines = [f"  {name.ljust(width)}  {_first_line(found[name])}".rstrip() for name in sorted(found)]
    example = "TextFiles" if "TextFiles" in found else next(iter(sorted(found)), "CLASS")
    name = option.removesuffix(".help")
    return "\n".join([f"Classes that {name} takes:", *lines, f"Options of one of them: {option} {example}"])


def _with_subclasses(base: type) -> Iterator[type]:
    yield base
    below: list[type] = type.__subclasses__(base)
    for each in below:
        yield from _with_subclasses(each)


def _is_offered(each: type) -> bool:
    """Whether a class can be named: not abstract nor private, and public in its package where that lists its names."""
    hidden = each.__name__.startswith(("_", "LazyInstance_")) or "._" in each.__module__
    package = sys.modules.get(each.__module__.rpartition(".")[0])
    names = getattr(package, "__all__", None)
    return not (hidden or inspect.isabstract(each) or (names and each.__name__ not in names))


def _first_line(each: type) -> str:
    return (inspect.getdoc(each) or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip()
