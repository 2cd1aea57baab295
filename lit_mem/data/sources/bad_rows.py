"""Unusable rows, and messages about them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lit_mem.errors import DataError

log = logging.getLogger(__name__)

_LISTED: Final = 5


class InFile(NamedTuple):
    """Position of a row in a set of several files.

    Attributes:
        file: number of the file in path order, from 1.
        number: number of the row in it, from 1.

    >>> f"{InFile(3, 17)}"
    '3:17'
    """

    file: int
    number: int

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


RowNumber = int | InFile
"""Position of a row."""


class BadRows:
    """Collects problems of single rows, so that one message can list the first few.

    Args:
        file: the path given by the user.
        unit: what rows are numbered by, from 1: "line", "row" or "file".

    Attributes:
        n_rows: number of rows in the file, including bad ones.
    """

    def __init__(self, file: str, unit: str) -> None:
        self.file, self.unit, self.n_rows = file, unit, 0
        self._problems: dict[Any, str] = {}

    def add(self, number: RowNumber, problem: str) -> None:
        """Record a problem of one row; only the first problem per row is kept."""
        self._problems.setdefault(number, problem)

    def include(self, part: BadRows, file: int) -> None:
        """Include the bad rows of one of several files, which has this number."""
        self.n_rows += part.n_rows
        self._problems |= {InFile(file, number): problem for number, problem in part._problems.items()}

    def check(self, hint: str = "") -> None:
        """Raise if there are bad rows.

        Args:
            hint: the option that skips them, if there is one.

        Raises:
            DataError: names the file, the first five bad rows with their fields, and the number of bad rows.
        """
        if self._problems:
            raise DataError(self._line(f"cannot be used{f' ({hint})' if hint else ''}"))

    def usable(self, numbers: Sequence[RowNumber]) -> list[int] | None:
        """Positions of usable rows in `numbers`, after a warning that names the others; None: all are usable.

        Raises:
            DataError: no row is usable.
        """
        if not self._problems:
            return None
        found = [place for place, number in enumerate(numbers) if number not in self._problems]
        if not found:
            self.check()
        log.warning("%s", self._line("cannot be used and are skipped"))
        return found

    def _line(self, what: str) -> str:
        listed = [f"{self._place(number)}, {problem}" for number, problem in sorted(self._problems.items())[:_LISTED]]
        if len(self._problems) > _LISTED:
            listed.append(f"and {len(self._problems) - _LISTED} more")
        return f"{self.file}: {len(self._problems)} of {self.n_rows} rows {what}: " + "; ".join(listed)

    def _place(self, number: RowNumber) -> str:
        if isinstance(number, InFile):
            return f"file {number.file}, {self.unit} {number.number}"
        return f"{self.unit} {number}"
