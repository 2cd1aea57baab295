"""One subgroup of a score table, and what attacks and measures say of it."""

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
        column: of the data, as it is called there.
        value: what its examples have in common.
        name: how the names of its metrics begin.
        table: its rows; NaN where an example was not measured.
    """

    column: str
    value: str
    name: str
    table: ScoreTable

    def __str__(self) -> str:
        """For a line that people read."""
        return f"{printable(self.column, 80)}={printable(self.value, 80)}"

    def measured(self, column: str) -> tuple[int, int]:
        """How many members and non-members were measured."""
        there = ~torch.isnan(self.table[column])
        n_members = int((there & self.table.member).sum())
        return n_members, int(there.sum()) - n_members

    def exposure(self, column: str, level: float = 0.95) -> GroupAuroc:
        """The attack whose scores are in `column`, on those it judged; there must be members and non-members."""
        return GroupAuroc(self.value, *self.measured(column), auroc(*self._judged(column), level))

    def area(self, column: str) -> tuple[float, Interval]:
        """The AUROC of `exposure`, and its interval at any level."""
        return auroc_interval(*self._judged(column))

    def _judged(self, column: str) -> tuple[Tensor, Tensor]:
        judged = ~torch.isnan(self.table[column])
        return self.table[column][judged], self.table.member[judged]

    def mean(self, column: str) -> tuple[float, Interval]:
        """Mean over the members measured, at least one, and its interval; the column must be within [0, 1]."""
        values = self.table.members()[column]
        return rate_interval(values[~torch.isnan(values)])

    def perplexity(self) -> float:
        """Of the members, token-weighted; the columns are `perplexity` and `n_tokens`. Infinite where it overflows."""
        members = self.table.members()
        members = members.where(~torch.isnan(members["perplexity"]))
        return float(((members["perplexity"].log() * members["n_tokens"]).sum() / members["n_tokens"].sum()).exp())


class TooSmall:
    """Gathers the subgroups too small for a metric, for one line on all of them.

    Args:
        min_size: fewest members, and for attacks fewest non-members too.
    """

    def __init__(self, min_size: int) -> None:
        self.min_size = min_size
        self._parts: dict[str, list[str]] = {}

    def add(self, metric: str, part: Slice, count: str) -> None:
        """Note a subgroup and its count: "members / non-members" for an attack."""
        self._parts.setdefault(metric, []).append(f"{part} ({count})")

    def line(self) -> str | None:
        """What is too small for what; metrics with the same subgroups and counts are listed together."""
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
    """Who is exposed most, if anyone stands out from all texts, at 95 % for all subgroups together.

    Of k subgroups that are no more exposed than the rest, some lie above it by chance, so each interval is taken at
    the level 1 − 0.05 / k (Bonferroni).

    Args:
        parts: the subgroups compared, each with members and non-members; at least one.
        attack: its name, for the text.
        column: of its scores.
        overall: its AUROC on all examples.
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
    """Whose suffixes are written whole more often than those of all members; None where nobody stands out.

    The level is that of `verdict`.

    Args:
        parts: the subgroups compared, each with members that were prompted; at least one.
        column: 1 where a suffix was written whole, else 0.
        overall: its mean over all members.
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
