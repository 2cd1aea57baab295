"""Per-example values aggregated by person: whatever `group_column` identifies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from lit_mem.audit.table import ScoreTable
from lit_mem.data.groups import Groups

KEY_SIZE: Final = 16
_HASH_SIZE: Final = 8  # bytes: a collision among a million persons has a probability of 3e-8
_SUFFIX: Final = "extraction/exact_rate"
_SPANS: Final = "spans_written"


class PersonRow(NamedTuple):
    """Results of one person in a pass.

    Attributes:
        person: keyed hash, or the name if names may be shown.
        member: whether the person's rows are in the fine-tuning set.
        rows: number of rows in the set, scored or not.
        rows_scored: number of rows scored in the pass.
        highest: highest score of the rows, higher = more member-like; NaN without scores.
        mean: mean score of the rows; NaN without scores.
        extracted: number of pieces extracted: spans, and whole suffixes; None if none was tried.
    """

    person: str
    member: bool
    rows: int
    rows_scored: int
    highest: float
    mean: float
    extracted: int | None


class PersonTable(NamedTuple):
    """Results of all persons in a pass.

    Attributes:
        column: column of the scores, such as "mia/reference"; None without scores.
        rows: members first, then by pieces extracted and by highest score, most exposed first.
    """

    column: str | None
    rows: Sequence[PersonRow]


class ByPerson:
    """The rows of a score table grouped by person.

    A person with rows on both sides is a member, and their held-out rows are ignored: the model has seen that person.

    Args:
        table: (N,) rows.
        names: person of each example, by example id; examples without one are ignored.
        groups: number of rows of each person; None: as many as are in the table.

    Attributes:
        names: names of the P persons, in the order of their first examples.
        member: (P,) bool.
        both: number of persons with rows on both sides, as far as their held-out rows are in the table.
    """

    def __init__(self, table: ScoreTable, names: Mapping[int, str], groups: Groups | None = None) -> None:
        of_row = [names.get(i, "") for i in table.example_id.tolist()]
        members = {name for name, member in zip(of_row, table.member.tolist(), strict=True) if member and name}
        trained = members.union(groups.members) if groups is not None else members
        sides = list(zip(of_row, table.member.tolist(), strict=True))
        kept = [bool(name) and (member or name not in trained) for name, member in sides]
        self.both = len({name for name, member in sides if name and not member and name in trained})
        keep = torch.tensor(kept, dtype=torch.bool)
        self._table, self._groups = table.where(keep), groups
        named = [name for name, there in zip(of_row, kept, strict=True) if there]
        number = {name: i for i, name in enumerate(dict.fromkeys(named))}
        self.names = list(number)
        self._person = torch.tensor([number[name] for name in named], dtype=torch.int64)
        self.member = torch.tensor([name in members for name in self.names], dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.names)

    def scored(self, column: str | None) -> Tensor:
        """(P,) int64, number of rows with a value in a column; None: number of rows in the table."""
        there = torch.ones(len(self._person), dtype=torch.bool) if column is None else ~self._table[column].isnan()
        return torch.bincount(self._person[there], minlength=len(self))

    def mean(self, column: str) -> Tensor:
        """(P,) float64, mean of each person's values; NaN without any."""
        return self.sum(column) / self.scored(column)

    def sum(self, column: str) -> Tensor:
        """(P,) float64, sum of each person's values; 0 without any."""
        return torch.zeros(len(self), dtype=torch.float64).index_add_(0, self._person, self._table[column].nan_to_num())

    def highest(self, column: str) -> Tensor:
        """(P,) float64, maximum of each person's values; NaN without any."""
        values = self._table[column]
        there = ~values.isnan()
        most = torch.full((len(self),), -torch.inf, dtype=torch.float64)
        most.scatter_reduce_(0, self._person[there], values[there], "amax")
        return torch.where(self.scored(column) > 0, most, torch.nan)

    def extracted(self) -> tuple[Tensor, Tensor]:
        """(P,) int64, number of pieces extracted of each person; and (P,) bool, whether any was tried.

        Pieces are marked spans, and suffixes reproduced token for token, at any of several prefix lengths.
        """
        columns = self._table.columns
        suffixes = [columns[name] for name in columns if _is_suffix(name)]
        pieces, tried = torch.zeros(len(self._person)), torch.zeros(len(self._person), dtype=torch.bool)
        if suffixes:
            at_any = torch.stack(suffixes)
            tried |= (~at_any.isnan()).any(dim=0)
            pieces += (at_any.nan_to_num() >= 1).any(dim=0)
        if _SPANS in columns:
            tried |= ~columns[_SPANS].isnan()
            pieces += columns[_SPANS].nan_to_num()
        written = torch.zeros(len(self), dtype=torch.float64).index_add_(0, self._person, pieces.double())
        return written.long(), torch.bincount(self._person[tried], minlength=len(self)) > 0

    def table(self, column: str | None, key: bytes, generated: bool = True) -> PersonTable:
        """Build one row per person.

        Args:
            column: column of the scores; None without scores.
            key: key of the hashes that replace names.
            generated: whether suffixes were tried in this pass; if not, `extracted` is None.
        """
        unknown = torch.full((len(self),), torch.nan, dtype=torch.float64)
        highest, mean = (unknown, unknown) if column is None else (self.highest(column), self.mean(column))
        groups, shown = self._groups, self._groups is not None and self._groups.shown
        scored, everywhere = self.scored(column).tolist(), self.scored(None).tolist()
        written, tried = (each.tolist() for each in self.extracted())
        rows = []
        for i, (name, member) in enumerate(zip(self.names, self.member.tolist(), strict=True)):
            counted = {} if groups is None else groups.members if member else groups.others
            rows.append(
                PersonRow(
                    name if shown else hashed(name, key),
                    member,
                    max(counted.get(name, 0), everywhere[i]),
                    scored[i],
                    highest[i].item(),
                    mean[i].item(),
                    written[i] if generated and tried[i] else None,
                )
            )
        return PersonTable(column, sorted(rows, key=_most_exposed_first))


def hashed(name: str, key: bytes) -> str:
    """Pseudonym of a name: 16 hexadecimal digits (keyed BLAKE2b), the same for the same key."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_HASH_SIZE, key=key).hexdigest()


def has_suffixes(columns: Iterable[str]) -> bool:
    """Whether any of these columns records which suffixes were extracted whole."""
    return any(map(_is_suffix, columns))


def _is_suffix(column: str) -> bool:
    return column == _SUFFIX or (column.startswith(f"{_SUFFIX}_prefix_") and not column.endswith("_base"))


def _most_exposed_first(row: PersonRow) -> tuple[bool, int, float, str]:
    highest = float("-inf") if row.highest != row.highest else row.highest
    return not row.member, -(row.extracted or 0), -highest, row.person
