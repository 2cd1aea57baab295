"""Tables of benchmark results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

Cell = str | float | int | None


@dataclass
class Table:
    """Rows of one comparison.

    Attributes:
        title: what is compared, where.
        columns: headings; the first is for the rows' names.
        rows: one cell per column; None for an empty cell.
        notes: lines below it.
    """

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    def row(self, name: str) -> dict[str, Cell]:
        """A row's cells by heading."""
        (found,) = [row for row in self.rows if row[0] == name]
        return dict(zip(self.columns, found, strict=True))

    def text(self) -> str:
        """As aligned lines."""
        cells = [self.columns, *([_shown(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [self.title]
        for first, *rest in cells:
            padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            lines.append("  ".join([first.ljust(widths[0]), *padded]).rstrip())
        return "\n".join([*lines, *self.notes])


def _shown(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 100 else f"{cell:.0f}"
    return "" if cell is None else str(cell)


def tell(args: argparse.Namespace, name: str, tables: Sequence[Table]) -> None:
    """Print the tables; with `--out` also write them there, as `<name>.txt` and `<name>.json`."""
    print(as_text(tables), flush=True)  # noqa: T201  (what a benchmark is for)
    write(args, name, tables)


def write(args: argparse.Namespace, name: str, tables: Sequence[Table]) -> None:
    """Write the tables to the folder of `--out`, if given, as `<name>.txt` and `<name>.json`."""
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{name}.txt").write_text(as_text(tables) + "\n")
        (args.out / f"{name}.json").write_text(json.dumps([asdict(table) for table in tables], indent=1) + "\n")


def as_text(tables: Sequence[Table]) -> str:
    """The tables as aligned lines, with an empty line between two."""
    return "\n\n".join(table.text() for table in tables)
