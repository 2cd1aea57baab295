"""Exceptions for everything that a user can fix, and the option checks that raise them.

The command line turns each of these into one line on standard error and exit code 2. Any other exception is a bug in
lit_mem and keeps its traceback.
"""

import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Real
from operator import ge, gt, le, lt
from typing import Any, TypeVar

_Options = TypeVar("_Options")


class LitMemError(Exception):
    """A mistake that the user can fix; the message names what was found, where, and what was expected."""


class ConfigError(LitMemError):
    """An option has an invalid value."""


class DataError(LitMemError):
    """A file, row or field of the data is not what was expected."""


class ModelError(LitMemError):
    """A base model, tokenizer or adapter cannot be loaded, or does not fit the options."""


class CheckpointError(LitMemError):
    """A checkpoint is damaged, or belongs to another base model or adapter."""


class TrainingError(LitMemError):
    """Training has diverged and cannot continue."""


class MetricError(LitMemError):
    """A measure cannot be computed from its input."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, cut after 200 characters."""
    return str(error).strip().partition("\n")[0][:200]


def check_range(
    option: str,
    value: float | None,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    or_null: bool = False,
    hint: str = "",
    kind: type[LitMemError] = ConfigError,
) -> None:
    """Reject a number that is out of range, NaN, infinite or a bool.

    Args:
        option: name of the option, for the message.
        value: the number.
        at_least: the least value allowed.
        above: allowed values are larger.
        at_most: the largest value allowed.
        below: allowed values are smaller.
        or_null: whether None is allowed.
        hint: added to the message.
        kind: exception class to raise.

    Raises:
        LitMemError: of class `kind`; it names the option, what was found and what was expected.

    >>> check_range("data.max_length", 1, at_least=2)
    Traceback (most recent call last):
    lit_mem.errors.ConfigError: data.max_length is 1; expected at least 2
    """
    if value is None and or_null:
        return
    limits = ("at least", at_least, ge), ("above", above, gt), ("at most", at_most, le), ("below", below, lt)
    given = [(word, limit, holds) for word, limit, holds in limits if limit is not None]
    number: Any = value
    finite = isinstance(number, Real) and not isinstance(number, bool) and math.isfinite(number)
    if finite and all(holds(number, limit) for _, limit, holds in given):
        return
    expected = [*([] if finite else ["a finite number"]), *(f"{word} {limit:g}" for word, limit, _ in given)]
    raise kind(f"{option} is {value}; expected {' and '.join(expected)}{', or null' * or_null}{hint}")


def options_of(kind: type[_Options], given: _Options | Mapping[str, Any] | None, option: str) -> _Options | None:
    """Options as an instance of `kind`, built from a mapping if needed; None if none are given.

    Args:
        kind: a dataclass; its fields are the options.
        given: the options.
        option: name of the option that holds them, for the message.

    Raises:
        ConfigError: an option name is unknown, or `given` has another type.
    """
    if given is None or isinstance(given, kind):
        return given
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]  # mypy cannot express "any dataclass"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{option} is {given!r}; expected {{{', '.join(names)}}}")
    if unknown := [name for name in given if name not in names]:
        raise ConfigError(f"{option} has no option {unknown[0]!r}; expected one of {', '.join(names)}")
    return kind(**given)
