"""Widths of intervals, and the value at which a threshold triggers, by the number of scored texts per set.

    python -m benchmarks.thresholds

Nothing is trained: these are the planned intervals of `lit_mem.functional.planning`, and Clopper-Pearson's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scipy.stats import binomtest

from benchmarks.table import Cell, Table, tell
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.audit.thresholds import PRESETS, parsed
from lit_mem.functional.planning import planned_interval, stops_at
from lit_mem.functional.spending import ALPHA


def most_events(n: int, limit: float) -> int | None:
    """The most events of n whose 95 % interval is within a limit; None if not even 0 is."""
    within = [k for k in range(n + 1) if binomtest(k, n).proportion_ci(0.95).high <= limit]
    return max(within, default=None)


def highest_within(n: int, limit: float) -> float:
    """The highest AUROC, to three digits, whose 95 % interval is within a limit with n and n texts."""
    return max(area / 1000 for area in range(1, 1000) if planned_interval(area / 1000, n, n)[1] <= limit)


def table(preset: str, texts: Sequence[int], validations: int) -> Table:
    """One row per number of scored texts per set, for a preset over this many validations."""
    limits = parsed(PRESETS[preset])
    area, rate = (next(one.limit for one in limits if one.is_auroc == is_area) for is_area in (True, False))
    level = 1 - 2 * ALPHA / validations / len(limits) / len(default_attacks())
    rows: list[list[Cell]] = []
    for n in texts:
        most, (low, high) = most_events(n, rate), planned_interval(area, n, n)
        zero = f"{100 * float(binomtest(0, n).proportion_ci(0.95).high):.2g} %"
        ends = f"{low:.3f} to {high:.3f}"
        rows.append([str(n), ends, highest_within(n, area), stops_at(area, n, n, level=level), zero, most])
    return Table(f"{preset}: {'; '.join(PRESETS[preset])}", COLUMNS, rows)


COLUMNS: Final = [
    "texts of each set", "interval at the limit", "within up to", "stops from", "none extracted: below", "within up to",
]  # fmt: skip


def main() -> None:
    """Print a table for each preset."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--texts", type=int, nargs="+", default=[50, 100, 300, 1000, 3000])
    made.add_argument("--validations", type=int, default=5)
    made.add_argument("--out", type=Path, default=None)
    args = made.parse_args()
    tell(args, "thresholds", [table(preset, args.texts, args.validations) for preset in PRESETS])


if __name__ == "__main__":
    main()
