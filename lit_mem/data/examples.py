"""Examples packed in a few buffers and created on access, so that a million of them fit in memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from lit_mem.data.packed import Array, Column, Numbers, Objects, Runs, labels, packed, smallest
from lit_mem.types import Record

if TYPE_CHECKING:
    from lit_mem.data.encoding import Encoded

AT_ONCE: Final = 1000
"""Number of examples packed together, which are Python objects at the same time."""


class Examples(Sequence["Encoded"]):
    """Examples in buffers: a few bytes per token plus the bytes of the texts; Python objects take ten times that.

    An example is created on each access, with its own tensors and record: changes to it affect nothing else. Slices and
    concatenations share the buffers.

    Args:
        examples: packed incrementally, so that an iterator never has more than `AT_ONCE` of them in memory.
    """

    def __init__(self, examples: Iterable[Encoded] = ()) -> None:
        rest = iter(examples)
        self._chunks = [_Chunk(some) for some in iter(lambda: list(islice(rest, AT_ONCE)), [])]
        self._starts = _starts(self._chunks)
        self._order: Array | None = None

    def __len__(self) -> int:
        return self._starts[-1] if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Encoded | Examples:
        """One example, newly created; or a slice, which shares the buffers."""
        if isinstance(index, slice):
            return self.select(range(*index.indices(len(self))))
        position = range(len(self))[index]
        chunk, place = self._at(position if self._order is None else int(self._order[position]))
        return chunk[place]

    def __iter__(self) -> Iterator[Encoded]:
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Sequence[Encoded]) -> Examples:
        """The concatenation; the others are packed if needed."""
        after = other if isinstance(other, Examples) else Examples(other)
        made = Examples()
        made._chunks = self._chunks + after._chunks
        made._starts = _starts(made._chunks)
        if self._order is not None or after._order is not None:
            made._order = np.concatenate([self._positions(), after._positions() + self._starts[-1]])
        return made

    def __radd__(self, other: Sequence[Encoded]) -> Examples:
        return Examples(other) + self

    def select(self, indices: Sequence[int]) -> Examples:
        """The examples at given positions, in that order, sharing the buffers."""
        made = Examples()
        made._chunks, made._starts = self._chunks, self._starts
        made._order = smallest(self._positions()[np.asarray(indices, np.int64)])
        return made

    def _at(self, position: int) -> tuple[_Chunk, int]:
        """The chunk that contains a position, and the position inside it."""
        chunk = bisect_right(self._starts, position) - 1
        return self._chunks[chunk], position - self._starts[chunk]

    def _places(self) -> Iterator[tuple[_Chunk, int]]:
        return map(self._at, range(len(self)) if self._order is None else self._order.tolist())

    def _positions(self) -> Array:
        return np.arange(self._starts[-1]) if self._order is None else self._order.astype(np.int64)

    def _of_chunks(self, values: Iterable[Array]) -> Array:
        """The elements of these examples, given one array per chunk."""
        flat = np.concatenate([np.empty(0, np.int64), *(value.astype(np.int64) for value in values)])
        return flat if self._order is None else flat[self._order]

    @property
    def lengths(self) -> Array:
        """(N,) int64, number of tokens of each example."""
        return self._of_chunks(chunk.lengths for chunk in self._chunks)

    @property
    def highest_ids(self) -> Array:
        """(N,) int64, the highest token id of each; 0 for one without tokens."""
        return self._of_chunks(chunk.highest_ids for chunk in self._chunks)

    def values(self, name: str) -> Iterator[Any]:
        """A non-tensor field of each example, without creating examples."""
        return (chunk.value(name, place) for chunk, place in self._places())

    def numbers(self, name: str) -> Array:
        """(N,) int64, an integer or boolean field of each example."""
        return self._of_chunks(chunk.numbers(name) for chunk in self._chunks)

    def texts(self) -> Iterator[str | None]:
        """The text of each record, without creating examples; None: it has no record."""
        return self._said("text")

    def prompts(self) -> Iterator[str | None]:
        """The prompt of each record, without creating examples; None: it has no record."""
        return self._said("prompt")

    def _said(self, name: str) -> Iterator[Any]:
        return (chunk.said(name, place) for chunk, place in self._places())

    def set_duplicates(self, counts: Array) -> None:
        """Set in each record the number of others with its text; visible in all slices that share the buffers.

        Args:
            counts: (N,) int64.
        """
        whole = np.zeros(self._starts[-1], np.int64)
        known = np.zeros(len(whole), bool)
        whole[self._positions()], known[self._positions()] = counts, True
        for chunk, start, end in zip(self._chunks, self._starts, self._starts[1:], strict=False):
            chunk.set_duplicates(whole[start:end], known[start:end])


class _Chunk:
    """Some examples, at least one, with a column per field and per record field."""

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self._kind = type(examples[0])
        names = [field.name for field in fields(self._kind)]
        self._columns: dict[str, Column] = {}
        for name in names:
            values = [getattr(example, name) for example in examples]
            if name == "record" and all(type(value) is Record for value in values):
                self._columns[name] = _Records(values)
            elif name == "labels":
                self._columns[name] = labels(self._columns["input_ids"], values)
            else:
                self._columns[name] = packed(values)
        self.size = len(examples)
        ids = self._columns["input_ids"]
        if not isinstance(ids, Runs):
            ids = Runs.of([example.input_ids.numpy(force=True) for example in examples])
        self.lengths, self.highest_ids = smallest(ids.lengths), smallest(ids.highest)

    def __getitem__(self, i: int) -> Encoded:
        return self._kind(**{name: column[i] for name, column in self._columns.items()})

    def value(self, name: str, i: int) -> Any:
        """A field of one example."""
        return self._columns[name][i]

    def numbers(self, name: str) -> Array:
        """(n,) int64 values of a field."""
        column = self._columns[name]
        if isinstance(column, Numbers):
            return column.values.astype(np.int64)
        return np.array([column[i] for i in range(self.size)], np.int64)

    def said(self, name: str, i: int) -> Any:
        """A field of one example's record; None: it has no record."""
        records = self._columns["record"]
        if isinstance(records, _Records):
            return records.columns[name][i]
        record = records[i]
        return None if record is None else getattr(record, name)

    def set_duplicates(self, counts: Array, known: Array) -> None:
        """Set them for the examples that are `known`."""
        records = self._columns["record"]
        if isinstance(records, _Records):
            before = [records.columns["duplicates"][i] for i in range(self.size)]
            records.columns["duplicates"] = Numbers(smallest(np.where(known, counts, before)), int)
        elif isinstance(records, Objects):
            for i in np.flatnonzero(known).tolist():
                if records[i] is not None:
                    records[i].duplicates = int(counts[i])


class _Records(Column):
    """A column per record field."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.columns = {name: packed([getattr(one, name) for one in records]) for name in Record.__slots__}

    def __getitem__(self, i: int) -> Record:
        made = object.__new__(Record)
        for name, column in self.columns.items():
            setattr(made, name, column[i])
        return made


def _starts(chunks: Sequence[_Chunk]) -> list[int]:
    return [0, *np.cumsum([chunk.size for chunk in chunks], dtype=np.int64).tolist()]


def lengths_of(examples: Sequence[Encoded]) -> list[int]:
    """Number of tokens of each example; if packed, without creating examples."""
    if isinstance(examples, Examples):
        return examples.lengths.tolist()  # type: ignore[no-any-return]
    return [len(example.input_ids) for example in examples]


def texts_of_records(examples: Sequence[Encoded]) -> Iterator[str | None]:
    """The text of each record; None: no record. If packed, without creating examples."""
    if isinstance(examples, Examples):
        return examples.texts()
    return (None if one.record is None else one.record.text for one in examples)


def prompts_of_records(examples: Sequence[Encoded]) -> Iterator[str | None]:
    """The prompt of each record; None: no record. If packed, without creating examples."""
    if isinstance(examples, Examples):
        return examples.prompts()
    return (None if one.record is None else one.record.prompt for one in examples)


def has_windows(examples: Sequence[Encoded]) -> bool:
    """Whether any example is split into windows. If packed, without creating examples."""
    if isinstance(examples, Examples):
        return any(one is not None for one in examples.values("windows"))
    return any(example.windows is not None for example in examples)
