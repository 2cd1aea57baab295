"""A table with one row per example, the same on every rank, from which the metrics of a set are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.audit.gather import gathered


class ScoreTable:
    """Per-example values of a whole set, one row per example id, sorted by id.

    Attributes:
        example_id: (N,) int64, ascending, unique.
        member: (N,) bool.
        columns: name -> (N,) float64.
    """

    def __init__(self, example_id: Tensor, member: Tensor, columns: Mapping[str, Tensor]) -> None:
        self.example_id = example_id
        self.member = member
        self.columns = dict(columns)

    @classmethod
    def empty(cls) -> ScoreTable:
        """A table without rows and columns."""
        return cls(torch.empty(0).long(), torch.empty(0).bool(), {})

    def __len__(self) -> int:
        return len(self.example_id)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def where(self, keep: Tensor) -> ScoreTable:
        """The rows where `keep`, (N,) bool, is True."""
        return ScoreTable(self.example_id[keep], self.member[keep], {k: v[keep] for k, v in self.columns.items()})

    def renamed(self, names: Mapping[str, str]) -> ScoreTable:
        """Some columns under other names: `names` maps each new name to the old one."""
        return ScoreTable(self.example_id, self.member, {new: self.columns[old] for new, old in names.items()})

    def members(self) -> ScoreTable:
        """The members' rows."""
        return self.where(self.member)

    def nonmembers(self) -> ScoreTable:
        """The non-members' rows."""
        return self.where(~self.member)


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Outer join of the tables by example id; NaN where a table lacks a row."""
    if not tables:
        return ScoreTable.empty()
    example_id: Tensor = torch.cat([table.example_id for table in tables]).unique()  # type: ignore[no-untyped-call]
    member = torch.zeros(len(example_id), dtype=torch.bool)
    columns: dict[str, Tensor] = {}
    for table in tables:
        at = torch.searchsorted(example_id, table.example_id)
        member[at] = table.member
        for name, values in table.columns.items():
            columns[name] = torch.full((len(example_id),), torch.nan, dtype=torch.float64)
            columns[name][at] = values
    return ScoreTable(example_id, member, columns)


class ExampleTable:
    """Collects one row per example over batches and ranks.

    Metrics such as AUROC are not means over ranks: they need all rows in one place. Distributed samplers repeat a few
    examples to give equal shares: rows with a repeated id count once.

    Args:
        columns: names of the values kept for each example.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self._mine: list[_Rows] = []
        self._all: ScoreTable | None = None

    def reset(self) -> None:
        """Drop all rows."""
        self._mine, self._all = [], None

    def update(self, example_id: Tensor, member: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add examples.

        Args:
            example_id: (B,) int64.
            member: (B,) bool.
            values: for every column, (B,) real values.
        """
        # Kept in float64 on the CPU: some accelerators have no float64.
        numbers = torch.empty((len(self.columns), len(example_id)), dtype=torch.float64)
        for row, name in zip(numbers, self.columns, strict=True):
            row.copy_(values[name].detach())
        self._mine.append(_Rows(example_id.detach().cpu(), member.detach().cpu().bool(), numbers))
        self._all = None

    def compute(self) -> ScoreTable:
        """All rows that all ranks have added since the last reset, on the CPU; every rank must call it."""
        if self._all is None:
            self._all = self._gathered()
        return self._all

    def _gathered(self) -> ScoreTable:
        empty = _Rows(torch.empty(0).long(), torch.empty(0).bool(), torch.empty((len(self.columns), 0)).double())
        mine = _Rows(*(torch.cat(parts, dim=-1) for parts in zip(empty, *self._mine, strict=True)))
        ids, member, numbers = (torch.cat(parts, dim=-1) for parts in zip(*gathered(mine), strict=True))
        order = ids.argsort(stable=True)
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[order][1:] != ids[order][:-1]
        keep = order[first]
        columns = dict(zip(self.columns, numbers[:, keep], strict=True))
        return ScoreTable(ids[keep], member[keep], columns)


class _Rows(NamedTuple):
    """Rows of one batch or rank: (n,) ids, (n,) membership, (columns, n) values."""

    example_id: Tensor
    member: Tensor
    numbers: Tensor
