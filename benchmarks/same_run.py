"""Whether two runs are the same: every metric, every training loss and every trained weight, to the last bit.

For a change that should alter nothing. Make a run before and one after it, on one machine, and compare their folders:

    python -m benchmarks.same_run before/logs/quickstart/version_0 after/logs/quickstart/version_0
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import torch

from lit_mem.files.record import FILE, read


def rows(folder: Path) -> list[dict[str, Any]]:
    """The validations of the record, then the training losses of `metrics.csv`; without empty cells and timings."""
    lines, _ = read(folder / FILE)
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        logged = [row for row in csv.DictReader(file) if row.get("train/loss")]
    found: list[dict[str, Any]] = [{"step": line.step, **line.metrics} for line in lines]
    found = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]
    return found + [{"step": int(row["step"]), "train/loss": row["train/loss"]} for row in logged]


def differences(before: Path, after: Path) -> list[str]:
    """A line for each difference; none where the runs are the same."""
    found = []
    old, new = rows(before), rows(after)
    if len(old) != len(new):
        found.append(f"{len(old)} rows of metrics before, {len(new)} after")
    for one, other in zip(old, new, strict=False):
        step = one.get("step")
        found += [f"step {step}: {k} only before" for k in sorted(one.keys() - other.keys())]
        found += [f"step {step}: {k} only after" for k in sorted(other.keys() - one.keys())]
        same = sorted(one.keys() & other.keys())
        found += [f"step {step}: {k} was {one[k]}, is {other[k]}" for k in same if repr(one[k]) != repr(other[k])]
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (before, after)]
    if weights[0].keys() != weights[1].keys():
        return [*found, "other weights are trained"]
    return found + [f"weight {k} differs" for k, w in weights[0].items() if not torch.equal(w, weights[1][k])]


def main() -> None:
    """Print the differences, or how much is the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    args = parser.parse_args()
    found = differences(args.before, args.after)
    if found:
        raise SystemExit("\n".join([*found[:50], f"{len(found)} differences"]))
    after = rows(args.after)
    names = {name for row in after for name in row} - {"step"}
    print(f"The same: {len(after)} rows, {len(names)} metrics, and all trained weights.")  # noqa: T201  (what the command is for)


if __name__ == "__main__":
    main()
