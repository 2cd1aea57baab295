"""Column values in Arrow, packed as they are read, so that not all of them are Python objects at once."""

from __future__ import annotations

import json
import secrets
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, overload

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

ABSENT: Final[Any] = type("_Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""Marks a value that a row does not have."""

AT_ONCE: Final = 10_000
"""Number of values that are Python objects at a time."""

_PLAIN: Final = (str, int, float, bool)


class StoredColumn(Sequence[Any]):
    """Values by position, restored with the same type.

    Args:
        values: packed incrementally.
        decoded: whether they come from JSON, and so may be stored as JSON if they have no common type.
    """

    def __init__(self, values: Iterable[Any] = (), decoded: bool = False) -> None:
        self._decoded = decoded
        self._parts: list[_Part] = []
        self._starts = [0]
        self._open: list[Any] = []
        rest = iter(values)
        for some in iter(lambda: list(islice(rest, AT_ONCE)), []):
            self.extend(some)

    def extend(self, values: Sequence[Any]) -> None:
        """Add values at the end."""
        self._open.extend(values)
        if len(self._open) >= AT_ONCE:
            self._pack()

    def append(self, value: Any) -> None:
        """Add a value at the end."""
        self._open.append(value)
        if len(self._open) >= AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        if self._open:
            self._parts.append(_packed(self._open, self._decoded))
            self._starts.append(len(self))
            self._open = []

    def __len__(self) -> int:
        return self._starts[-1] + len(self._open)

    def __iter__(self) -> Iterator[Any]:
        return chain(chain.from_iterable(part.values() for part in self._parts), self._open)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        position = range(len(self))[index]
        if position >= self._starts[-1]:
            return self._open[position - self._starts[-1]]
        part = bisect_right(self._starts, position) - 1
        at = position - self._starts[part]
        return self._parts[part].values(at, at + 1)[0]

    def arrow(self) -> pa.Array | pa.ChunkedArray:
        """One Arrow array of all values, as by `typed` of a list."""
        import pyarrow as pa

        self._pack()
        if not self._parts:
            return typed([])
        try:
            arrays = [part.arrow() for part in self._parts]
        except _no_type():
            return typed(list(self))
        kinds = {array.type for array in arrays if not pa.types.is_null(array.type)}
        if len(kinds) > 1 or any("\0" in str(kind) for kind in kinds):
            return typed(list(self))
        kind = kinds.pop() if kinds else pa.null()
        # Casting a list of nulls to its own type fails.
        return pa.chunked_array([array if array.type == kind else array.cast(kind) for array in arrays], kind)


class RowColumn(Sequence[Any]):
    """A column of a typed dataset, read in chunks.

    Args:
        dataset: with this column.
        name: name of the column.
        otherwise: converts an Arrow scalar, if `datasets` cannot read some rows.
    """

    def __init__(self, dataset: Dataset, name: str, otherwise: Callable[[Any], Any]) -> None:
        self._dataset, self._name, self._otherwise = dataset, name, otherwise

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), AT_ONCE):
            yield from self[start : start + AT_ONCE]

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            position = range(len(self))[index]
            return self[position : position + 1][0]
        try:
            # Not from Arrow, in which `datasets` stores values of mixed types as JSON strings.
            return list(self._dataset[index][self._name])
        except (ValueError, OverflowError):
            arrow = self._dataset.with_format("arrow")[index][self._name]
            return [self._otherwise(scalar) for scalar in arrow]


class _Part:
    """A chunk of values in Arrow.

    Attributes:
        array: (n,) values, null if missing; as JSON if they have no common plain type.
        absent: (n,) whether the value is absent instead of null; None: none is absent.
        is_json: whether `array` has JSON.
    """

    def __init__(self, array: pa.Array, absent: list[bool], is_json: bool) -> None:
        import pyarrow as pa

        self.array, self.is_json = array, is_json
        self.absent = pa.array(absent) if any(absent) else None

    def values(self, start: int = 0, stop: int | None = None) -> list[Any]:
        """The original values from `start` to `stop`."""
        length = (len(self.array) if stop is None else stop) - start
        found: list[Any] = self.array.slice(start, length).to_pylist()
        if self.is_json:
            found = [None if one is None else json.loads(one) for one in found]
        if self.absent is not None:
            absent = self.absent.slice(start, length).to_pylist()
            found = [ABSENT if lacks else one for one, lacks in zip(found, absent, strict=True)]
        return found

    def arrow(self) -> pa.Array:
        """As an array of the type that Arrow infers.

        Raises:
            ArrowException, OverflowError, UnicodeError: they have no common type.
        """
        import pyarrow as pa

        return pa.array(_without_absent(self.values())) if self.is_json else self.array


class _Objects(_Part):
    """Values that are kept as Python objects: neither plain nor JSON."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def values(self, start: int = 0, stop: int | None = None) -> list[Any]:
        return self._values[start:stop]

    def arrow(self) -> pa.Array:
        import pyarrow as pa

        return pa.array(_without_absent(self._values))


def _packed(values: list[Any], decoded: bool) -> _Part:
    import pyarrow as pa

    plain = _without_absent(values)
    absent = [value is ABSENT for value in values]
    kinds = {type(value) for value in plain} - {type(None)}
    if len(kinds) <= 1 and kinds <= {*_PLAIN}:
        try:
            return _Part(pa.array(plain), absent, False)
        except _no_type():  # a lone surrogate, an integer with many digits
            pass
    if decoded:
        # ASCII, since an unpaired surrogate cannot be stored but its escape can.
        return _Part(_json(plain), absent, True)
    return _Objects(values)


def typed(values: Sequence[Any]) -> pa.Array:
    """One Arrow array of the values, or of their JSON if they have no common type.

    Args:
        values: (N,) decoded JSON; `ABSENT` becomes null.

    >>> typed([1, 2, None]).to_pylist(), typed([1, "a", None]).to_pylist()
    ([1, 2, None], ['1', '"a"', None])
    """
    import pyarrow as pa

    plain = _without_absent(values)
    try:
        array = pa.array(plain)
        # Arrow truncates a name at NUL when passing it to `datasets`, which then finds other columns.
        if "\0" not in str(array.type):
            return array
    except _no_type():
        pass
    return _json(plain)


def dataset_of(columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> Dataset:
    """A dataset of these columns, without copying them.

    `Dataset.from_dict` computes its fingerprint from a second copy of all values; here it is random, since nothing is
    cached.
    """
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable

    return Dataset(InMemoryTable(pa.table(dict(columns))), fingerprint=secrets.token_hex(8))


def _without_absent(values: Iterable[Any]) -> list[Any]:
    return [None if value is ABSENT else value for value in values]


def _json(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _no_type() -> tuple[type[Exception], ...]:
    """The exceptions of Arrow for values without a common type, and for unsupported ones."""
    import pyarrow as pa

    return pa.ArrowException, OverflowError, UnicodeError
