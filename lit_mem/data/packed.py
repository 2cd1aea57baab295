"""Pack values of many examples in a few buffers, one column per field, and restore identical values.

The packing depends only on the values of a column, so a new field of an example needs no change here: integers,
booleans, strings, tuples of integers and tensors of token ids go to numpy buffers; attributes and spans to JSON in one
buffer; anything else is kept as Python objects.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import torch

from lit_mem.types import IGNORED, Span

Array = np.ndarray[Any, Any]

_SIZES: Final = (np.uint8, np.uint16, np.int32, np.int64)


class Column(ABC):
    """One value for each of N examples."""

    @abstractmethod
    def __getitem__(self, i: int) -> Any:
        """The value of one example; a mutable value is newly created on each access."""


class Same(Column):
    """One immutable value shared by all examples."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, i: int) -> Any:
        return self.value


class Empty(Column):
    """An empty dictionary, a new one for each example."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {}


class Numbers(Column):
    """Integers or booleans: `kind` is their Python type."""

    def __init__(self, values: Array, kind: type) -> None:
        self.values, self.kind = values, kind

    def __getitem__(self, i: int) -> Any:
        return self.kind(self.values[i])


class Runs(Column):
    """Integer sequences of varying length, concatenated: tensors, or tuples.

    Attributes:
        flat: (S,) all values.
        ends: (N,) end of each example in `flat`.
    """

    def __init__(self, flat: Array, lengths: Array, as_tensors: bool) -> None:
        self.flat, self.ends, self.as_tensors = smallest(flat), np.cumsum(lengths), as_tensors

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Runs:
        """Pack arrays, restored as tensors."""
        return cls(np.concatenate(arrays), np.array([len(array) for array in arrays]), True)

    @property
    def lengths(self) -> Array:
        """(N,) int64, number of values of each example."""
        return np.diff(self.ends, prepend=0)

    @property
    def highest(self) -> Array:
        """(N,) int64, the highest value of each; 0 if empty."""
        # For an empty one, reduceat gives the element after it.
        found = np.maximum.reduceat(np.append(self.flat, 0), self.ends - self.lengths)
        return np.where(self.lengths > 0, found, 0)

    def bounds(self, i: int) -> tuple[int, int]:
        """Start and end of one example in `flat`."""
        return int(self.ends[i - 1]) if i else 0, int(self.ends[i])

    def __getitem__(self, i: int) -> Any:
        start, end = self.bounds(i)
        part = self.flat[start:end]
        return torch.from_numpy(part.astype(np.int64)) if self.as_tensors else tuple(part.tolist())


class Labels(Column):
    """(T,) int64 labels: the token id where a bit is set, `IGNORED` elsewhere."""

    def __init__(self, ids: Runs, trained: Array) -> None:
        self.ids, self.bits = ids, np.packbits(trained)

    def __getitem__(self, i: int) -> Any:
        start, end = self.ids.bounds(i)
        first = start // 8
        bits = np.unpackbits(self.bits[first : -(-end // 8)])[start - 8 * first : end - 8 * first]
        return torch.from_numpy(np.where(bits, self.ids.flat[start:end].astype(np.int64), IGNORED))


class Texts(Column):
    """Strings as UTF-8 in one buffer; lone surrogates are preserved."""

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        self.buffer = b"".join(parts)
        self.ends = smallest(np.cumsum([len(part) for part in parts], dtype=np.int64))

    def __getitem__(self, i: int) -> str:
        start = int(self.ends[i - 1]) if i else 0
        return self.buffer[start : int(self.ends[i])].decode("utf-8", "surrogatepass")


class Written(Column):
    """Values as JSON, with a function to decode them."""

    def __init__(self, values: Iterable[Any], read: Callable[[Any], Any]) -> None:
        self.texts, self.read = Texts(json.dumps(value) for value in values), read

    def __getitem__(self, i: int) -> Any:
        return self.read(json.loads(self.texts[i]))


class Objects(Column):
    """Python objects, unpacked."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)

    def __getitem__(self, i: int) -> Any:
        return self.values[i]


def packed(values: Sequence[Any]) -> Column:
    """Pack values, at least one, into a column."""
    kinds = {type(value) for value in values}
    first = values[0]
    if len(kinds) > 1:
        return Objects(values)
    kind = kinds.pop()
    if kind in (int, bool, str, tuple, type(None)) and all(value == first for value in values) and _is_fixed(first):
        return Same(first)
    if kind in (int, bool):
        return _numbers(values, kind)
    if kind is str:
        return Texts(values)
    if kind is torch.Tensor:
        return _tensors(values)
    if kind is dict and not any(values):
        return Empty()
    if kind is dict and all(map(_are_attributes, values)):
        return Written(values, _attributes)
    if kind is tuple and all(type(part) is int for value in values for part in value):
        return _tuples(values)
    if kind is tuple and all(type(part) is Span for value in values for part in value):
        return Written(values, _spans)
    return Objects(values)


def smallest(values: Array) -> Array:
    """The integers in the smallest suitable type."""
    if not len(values):
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    return values.astype(next(size for size in _SIZES if np.iinfo(size).min <= low and high <= np.iinfo(size).max))


def _is_fixed(value: Any) -> bool:
    """Whether equal values are identical: 1 equals True, also in a tuple."""
    return not isinstance(value, tuple) or not value


def _numbers(values: Sequence[Any], kind: type) -> Column:
    try:
        return Numbers(smallest(np.array(values, np.int64)), kind)
    except OverflowError:
        return Objects(values)


def _tuples(values: Sequence[tuple[int, ...]]) -> Column:
    lengths = np.array([len(value) for value in values])
    try:
        return Runs(np.fromiter(chain.from_iterable(values), np.int64, int(lengths.sum())), lengths, False)
    except OverflowError:
        return Objects(values)


def _tensors(values: Sequence[torch.Tensor]) -> Column:
    try:
        arrays = [value.numpy() for value in values]
    except (TypeError, RuntimeError):  # on another device, or part of a graph
        return Objects(values)
    if any(array.dtype != np.int64 or array.ndim != 1 for array in arrays):
        return Objects(values)
    return Runs.of(arrays)


def labels(ids: Column, values: Sequence[torch.Tensor]) -> Column:
    """Pack labels given the token ids: as bits, if they are all token ids or `IGNORED`."""
    plain = packed(values)
    if not isinstance(ids, Runs) or not isinstance(plain, Runs) or not np.array_equal(ids.ends, plain.ends):
        return plain
    trained = plain.flat != IGNORED
    same = np.array_equal(plain.flat[trained], ids.flat[trained]) and not (ids.flat == IGNORED).any()
    return Labels(ids, trained) if same else plain


def _are_attributes(value: dict[Any, Any]) -> bool:
    return all(type(name) is str and _is_attribute(one) for name, one in value.items())


def _is_attribute(value: Any) -> bool:
    if type(value) is tuple:
        return all(type(part) is str for part in value)
    return type(value) in (str, float, int, bool)


def _attributes(read: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}


def _spans(read: list[Any]) -> tuple[Span, ...]:
    return tuple(Span(*one) for one in read)
