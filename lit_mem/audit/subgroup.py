"""One subgroup of a score table, and its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.audit.table import ScoreTable
from lit_mem.functional.auroc import GroupAuroc, auroc, auroc_interval
from lit_mem.functional.interval import Interval
from lit_mem.functional.plain_text import printable
from lit_mem.functional.rate import rate_interval


class Slice(NamedTuple):
    """A subgroup.

    Attributes:
        column: name of the column in the data.
        value: value shared by its examples.
        name: prefix of the names of its metrics.
        table: its rows; NaN where an example was not measured.
    """

    column: str
    value: str
    name: str
    table: ScoreTable

    def __str__(self) -> str:
        """Printable form for messages."""
        return f"{printable(self.column, 80)}={printable(self.value, 80)}"

    def measured(self, column: str) -> tuple[int, int]:
        """Number of members and non-members measured."""
        there = ~torch.isnan(self.table[column])
        n_members = int((there & self.table.member).sum())
        return n_members, int(there.sum()) - n_members

    def exposure(self, column: str, level: float = 0.95) -> GroupAuroc:
        """AUROC of the attack in `column` over the examples it scored; needs members and non-members."""
        return GroupAuroc(self.value, *self.measured(column), auroc(*self._judged(column), level))

    def area(self, column: str) -> tuple[float, Interval]:
        """The same AUROC, with its interval at any level."""
        return auroc_interval(*self._judged(column))

    def _judged(self, column: str) -> tuple[Tensor, Tensor]:
        judged = ~torch.isnan(self.table[column])
        return self.table[column][judged], self.table.member[judged]

    def mean(self, column: str) -> tuple[float, Interval]:
        """Mean over the measured members (at least one), and its interval; the column must be within [0, 1]."""
        values = self.table.members()[column]
        return rate_interval(values[~torch.isnan(values)])

    def perplexity(self) -> float:
        """Token-weighted perplexity of the members, from `perplexity` and `n_tokens`. Infinite on overflow."""
        members = self.table.members()
        members = members.where(~torch.isnan(members["perplexity"]))
        return float(((members["perplexity"].log() * members["n_tokens"]).sum() / members["n_tokens"].sum()).exp())


class TooSmall:
    """Collects the subgroups too small for a metric, to report them in one line.

    Args:
        min_size: minimum number of members, and for attacks of non-members too.
    """

    def __init__(self, min_size: int) -> None:
        self.min_size = min_size
        self._parts: dict[str, list[str]] = {}

    def add(self, metric: str, part: Slice, count: str) -> None:
        """Add a subgroup and its count: "members / non-members" for an attack."""
        self._parts.setdefault(metric, []).append(f"{part} ({count})")

    def line(self) -> str | None:
        """The subgroups that are too small; metrics with the same subgroups and counts are listed together."""
        together: dict[tuple[str, ...], list[str]] = {}
        for metric, parts in self._parts.items():
            together.setdefault(tuple(parts), []).append(metric)
        if not together:
            return None
        listed = "; ".join(f"for {_listing(metrics, 3)}: {_listing(parts, 12)}" for parts, metrics in together.items())
        return f"Slices too small, with fewer than {self.min_size} members or (second number) non-members, {listed}."


def _compared(n: int) -> str:
    if n == 1:
        return "1 slice was compared, at 95 %"
    return f"{n} slices were compared, and the interval is at 95 % for all of them together"


def verdict(parts: Sequence[Slice], attack: str, column: str, overall: float) -> str:
    """The most exposed subgroup, if one differs from all texts, at 95 % for all subgroups together.

    Among k subgroups that are no more exposed than average, some lie above it by chance, so each interval is taken at
    level 1 − 0.05 / k (Bonferroni).

    Args:
        parts: the subgroups compared, each with members and non-members; at least one.
        attack: name of the attack, for the text.
        column: column of its scores.
        overall: AUROC on all examples.
    """
    level = 1 - 0.05 / len(parts)
    exposures = [(part, part.exposure(column, level)) for part in parts]
    outstanding = [(part, each) for part, each in exposures if each.area.low > overall]
    part, most = max(outstanding or exposures, key=lambda pair: pair[1].area.value)
    opening = "Most exposed: " if outstanding else "No slice stands out; the highest is "
    return (
        f"{opening}{part}, AUROC of {attack} {most.area.value:.3f} [{most.area.low:.3f}, {most.area.high:.3f}] "
        f"({most.n_members} members, {most.n_nonmembers} non-members) against {overall:.3f} on all texts; "
        f"{_compared(len(parts))}."
    )


def extraction_verdict(parts: Sequence[Slice], column: str, overall: float) -> str | None:
    """The subgroup whose suffixes are extracted whole more often than overall; None if no subgroup differs.

    The level is that of `verdict`.

    Args:
        parts: the subgroups compared, each with prompted members; at least one.
        column: 1 where a suffix was extracted whole, else 0.
        overall: mean of the column over all members.
    """
    level = 1 - 0.05 / len(parts)
    rates = []
    for part in parts:
        value, interval = part.mean(column)
        rates.append((part, value, *interval(level)))
    part, value, low, high = max(rates, key=lambda rate: (rate[2] > overall, rate[1]))
    if low <= overall:
        return None
    return (
        f"Most extracted: {part}, whole suffix of {value:.1%} [{low:.1%}, {high:.1%}] of {part.measured(column)[0]} "
        f"members against {overall:.1%} of all; {_compared(len(parts))}."
    )


def _listing(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
