"""Assign the validated examples to subgroups, by the columns of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch

from lit_mem.audit.gather import Gathered
from lit_mem.audit.hidden_values import HasTexts, HiddenValues
from lit_mem.audit.subgroup import Slice
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import ConfigError
from lit_mem.files.once import Once
from lit_mem.functional.groups import Value, groups_of, has_groups, safe_names, shortened
from lit_mem.functional.plain_text import printable
from lit_mem.functional.shown_values import LONGEST, shown_as
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)

_LENGTH: Final = "length"
_DUPLICATES: Final = "duplicates"
_COLUMNS_SHOWN: Final = 20


class _Known(NamedTuple):
    """Grouping attributes of an example; never its text."""

    n_tokens: int
    duplicates: int | None
    attributes: Mapping[str, Value]


class Subgroups:
    """Collects the grouping attributes of examples over batches and ranks, and splits a score table by them.

    Attributes are kept between passes, since those of an example do not change.

    Args:
        columns: columns of the data, by name; None: all that form groups.
        length: group by the number of scored tokens too.
        duplicates: group by the number of other members with the same text too.
        bins: number of groups that numeric columns are binned into.
        max_groups: maximum number of distinct texts in a column not listed in `columns`, and of distinct numbers that
            are not binned.
        min_size: values with fewer rows are shown by number, in columns not listed in `columns`.
        show_text: show the values of `columns` even if they are texts of the run.
    """

    def __init__(
        self,
        columns: list[str] | None,
        length: bool,
        duplicates: bool,
        bins: int,
        max_groups: int,
        min_size: int = 1,
        show_text: bool = False,
    ) -> None:
        self.columns, self.length, self.duplicates = columns, length, duplicates
        self.bins, self.max_groups, self.min_size, self.show_text = bins, max_groups, min_size, show_text
        self._hidden = HiddenValues()
        self._known: Gathered[int, _Known] = Gathered()
        self._there: Gathered[str, bool] = Gathered()
        self._once = Once()

    def reset(self) -> None:
        """Reset before other data, whose examples may have the same ids."""
        self._known.reset()
        self._there.reset()
        self._hidden.reset()
        self._once.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep the grouping attributes of a batch's examples."""
        records = batch.get("records")
        self._hidden.observe(batch)
        for row, (example_id, n_tokens) in enumerate(
            zip(scores.example_id.tolist(), scores.n_tokens.tolist(), strict=True)
        ):
            if example_id in self._known:
                continue
            if records is None:
                self._known[example_id] = _Known(n_tokens, None, {})
                continue
            values = records[row].attributes
            for column in values:
                self._there[column] = True
            attributes = {c: shortened(v) for c, v in values.items() if self.columns is None or c in self.columns}
            self._known[example_id] = _Known(n_tokens, records[row].duplicates, attributes)

    def gather(self) -> None:
        """Gather the attributes over all ranks; every rank must call it.

        Raises:
            ConfigError: no example has a column of `columns`; the message lists the columns available.
        """
        self._known.compute()
        there = sorted(self._there.compute())
        if missing := [column for column in self.columns or () if column not in there]:
            raise ConfigError(
                f"Slices.columns names {missing[0]!r}, which no validated text has; "
                + (f"expected one of {_listing(there)}" if there else "the data has no columns beside the texts")
                + " (a column that names groups is left out unless data.show_groups is true)"
            )

    def of(self, table: ScoreTable, subject: HasTexts | None = None) -> list[Slice]:
        """The subgroups of the table's examples, column by column; every rank must call it, after `gather`.

        Only members are grouped by duplicates: each of these subgroups has all non-members.

        Args:
            table: one row per example.
            subject: holds the texts that values must not reveal.
        """
        known = self._known.compute()
        rows = [known.get(example_id) for example_id in table.example_id.tolist()]
        first = self._once.first()
        groups, left_out = self._by_attribute(rows, first)
        columns, values = self._names(groups, left_out, len(known), subject)
        if left_out and first:
            log.info(
                f"No slices by {_listing([columns[column] for column in left_out])}: a single value, or too many "
                "distinct values; list a column in Slices.columns to slice by it anyway."
            )
        if self.length:
            lengths = [None if row is None else float(row.n_tokens) for row in rows]
            groups[_free(_LENGTH, groups)] = groups_of(lengths, self.bins, self.bins)
        copies = _free(_DUPLICATES, groups)
        if self.duplicates:
            groups[copies] = [_copies(row) for row in rows]
        slices = []
        in_names = safe_names([columns.get(column, column) for column in groups])
        for column, labels in groups.items():
            there = sorted({label for each in labels for label in each})
            if len(there) < 2 and column not in (self.columns or ()):
                continue  # the only group is the whole set
            shown = values.get(column) or {value: value for value in there}
            title, names = columns.get(column, column), safe_names(shown.values())
            for value in there:
                keep = torch.tensor([value in each for each in labels], dtype=torch.bool)
                if self.duplicates and column == copies:  # held-out texts have no copies among members
                    keep |= ~table.member
                name = f"slice/{in_names[title]}/{names[shown[value]]}"
                slices.append(Slice(title, shown[value], name, table.where(keep)))
        return slices

    def _names(
        self,
        groups: Mapping[str, Sequence[tuple[str, ...]]],
        left_out: Sequence[str],
        n_known: int,
        subject: HasTexts | None,
    ) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """Display names of the columns, and of the values of each."""
        labels = {label for column in groups.values() for each in column for label in each}
        if self.columns is not None:
            # The user listed the columns; showing a whole text needs one more option.
            hidden = set() if self.show_text else self._hidden.among(labels, n_known, subject, whole=True)
            if not self.show_text:
                hidden |= {label for label in labels if len(label) > LONGEST}
            shown = {c: shown_as(each, hidden, 1, longest=None) for c, each in groups.items()}
            return {column: column for column in groups}, shown
        columns = [*groups, *left_out]
        hidden = self._hidden.among([*labels, *columns], n_known, subject)
        titles = shown_as([[column] for column in columns], hidden, 1, "column")
        return titles, {column: shown_as(each, hidden, self.min_size) for column, each in groups.items()}

    def _by_attribute(
        self, rows: Sequence[_Known | None], first: bool
    ) -> tuple[dict[str, list[tuple[str, ...]]], list[str]]:
        """The groups of each column, and the columns that form none."""
        attributes: list[Mapping[str, Value]] = [{} if row is None else row.attributes for row in rows]
        there = sorted({column for each in attributes for column in each})
        if self.columns is None and not there and first:
            log.info("No slices by attribute: the data has no columns beside the texts.")
        groups, left_out = {}, []
        for column in there if self.columns is None else self.columns:
            values = [each.get(column) for each in attributes]
            if self.columns is None and not has_groups(values, self.max_groups):
                given = [value for value in values if value is not None]
                if len(set(given)) < len(given):  # a column of unique values is not worth a message
                    left_out.append(column)
            else:
                groups[column] = groups_of(values, self.bins, self.max_groups)
        return groups, left_out


def _free(column: str, taken: Mapping[str, object]) -> str:
    """The column's name, with a suffix if the data has a column of that name."""
    return _free(f"{column}_2", taken) if column in taken else column


def _listing(columns: Sequence[str]) -> str:
    more = [f"and {len(columns) - _COLUMNS_SHOWN} more"] if len(columns) > _COLUMNS_SHOWN else []
    return ", ".join([*(printable(column, 40) for column in columns[:_COLUMNS_SHOWN]), *more])


def _copies(row: _Known | None) -> tuple[str, ...]:
    if row is None or row.duplicates is None:
        return ()
    return (str(row.duplicates) if row.duplicates < 2 else "2 or more",)
