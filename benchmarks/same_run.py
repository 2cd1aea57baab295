"""Check that two runs are bit-identical: every metric of every row, and every trained weight.

For a change without effect on results. Run before and after it, on one machine, and compare the folders:

    python -m benchmarks.same_run before/logs/quickstart/version_0 after/logs/quickstart/version_0

Validations are compared by the record, which has all metrics in double precision, independent of loggers; training by
the rows of `metrics.csv`.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lit_mem.files.record import FILE

Row = dict[str, Any]


def validations(folder: Path) -> list[Row]:
    """One row per line of the record, without timings: facts about the pass, and its metrics.

    Raises:
        SystemExit: there is no record.
    """
    path = folder / FILE
    if not path.is_file():
        raise SystemExit(f"{path} does not exist; expected the record of a run")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [_without_times({**line, **line["metrics"], "metrics": None}) for line in lines]


def steps(folder: Path) -> list[Row]:
    """Rows of `metrics.csv` with a training loss, restricted to what training logged."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("train/loss")]
    return [{k: v for k, v in row.items() if v and (k == "step" or k.startswith("train/"))} for row in rows]


def differences(before: Path, after: Path) -> list[str]:
    """One line per difference; empty if the runs are identical.

    Raises:
        SystemExit: one of them has no record.
    """
    found = _of_rows("validations", validations(before), validations(after))
    found += _of_rows("rows of training", steps(before), steps(after))
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (before, after)]
    if weights[0].keys() != weights[1].keys():
        return [*found, "different weights are trained"]
    return found + [f"weight {k} differs" for k, w in weights[0].items() if not torch.equal(w, weights[1][k])]


def _of_rows(what: str, old: list[Row], new: list[Row]) -> list[str]:
    found = [] if len(old) == len(new) else [f"{len(old)} {what} before, {len(new)} after"]
    for one, other in zip(old, new, strict=False):
        step = one.get("step")
        found += [f"step {step}: {k} only before" for k in sorted(one.keys() - other.keys())]
        found += [f"step {step}: {k} only after" for k in sorted(other.keys() - one.keys())]
        same = sorted(one.keys() & other.keys())
        found += [f"step {step}: {k} was {one[k]}, is {other[k]}" for k in same if one[k] != other[k]]
    return found


def _without_times(row: Mapping[str, Any]) -> Row:
    return {name: value for name, value in row.items() if not name.startswith("time/")}


def main() -> None:
    """Print the differences, or what was compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    args = parser.parse_args()
    found = differences(args.before, args.after)
    if found:
        raise SystemExit("\n".join([*found[:50], f"{len(found)} differences"]))
    passes, trained = validations(args.after), steps(args.after)
    names = {name for row in passes for name in row if "/" in name}
    print(  # noqa: T201  (what the command is for)
        f"The same: {len(passes)} validations, {len(names)} metrics, {len(trained)} rows of training, and all trained "
        "weights."
    )


if __name__ == "__main__":
    main()
