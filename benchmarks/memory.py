"""Peak memory of a tracked run against an untracked one, and against loading a second copy of the model.

One fit in a fresh process for each side, as in `benchmarks.tracking` (measured before training and after each epoch,
with as many members and held-out texts scored as trained on):

- untracked: training and held-out loss.
- tracked: all callbacks and loggers of `configs/smollm2_phee.yaml`; the reference is the model with its adapter
disabled. - tracked, copy: the same with a second copy of the model as the reference (`model.reference.kind: copy`).

On a CPU it is the peak resident memory of the process; `above libraries` excludes the memory before the model was
loaded, which is the same on all sides. On a GPU it is the peak memory allocated by torch. Held-out losses must be
identical on all sides, and both tracked sides' metrics too (on a GPU: to 0.1 %).

    python -m benchmarks.memory
    python -m benchmarks.memory --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 100 --repeats 1
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.fits import Case, fit, memorization
from benchmarks.setting import agree, device_of, machine, parser
from benchmarks.table import Table, tell
from lit_mem.scoring.reference_scores import Reference

SIDES = ("untracked", "tracked", "tracked, copy")
WATCHED = ("mia/reference_auroc", "mia/loss_auroc", "extraction/ngram_rate_base")
MIB = 2**20


def peak_resident() -> int:
    """Bytes: the most resident memory of this process so far."""
    try:
        # The kernel's value for this program only; getrusage starts at the peak of the parent process.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def one_side(args: argparse.Namespace) -> dict[str, Any]:
    """Fit in this process; returns peaks in bytes, losses and metrics."""
    tracked = args.side != "untracked"
    # Import lazily loaded libraries before the model on all sides, so that they cancel.
    memorization()
    for name in ("transformers", "peft", "sklearn.metrics", "matplotlib.figure", "torch.utils.tensorboard"):
        importlib.import_module(name)
    libraries = peak_resident()
    kind = "copy" if args.side == "tracked, copy" else "auto"
    case = Case("as many", args.rows, args.rows)
    done = fit(args, case, tracked, args.epochs, Reference(kind=kind, cache=False))  # type: ignore[arg-type]
    on_gpu = device_of(args).type == "cuda"
    return {
        "peak": torch.cuda.max_memory_allocated() if on_gpu else peak_resident(),
        "libraries": 0 if on_gpu else libraries,
        "losses": done.clock.losses,
        "metrics": {name: done.clock.metrics[name] for name in WATCHED} if tracked else {},
    }


def in_fresh_process(args: argparse.Namespace, side: str) -> dict[str, Any]:
    """The result of `one_side` in a fresh process."""
    words = [sys.executable, "-m", "benchmarks.memory", "--side", side, "--device", args.device]
    words += ["--model", args.model, "--source", args.source, "--rows", str(args.rows), "--epochs", str(args.epochs)]
    words += ["--folder", args.folder] if args.folder else []
    root = str(Path(__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run(words, stdout=subprocess.PIPE, env=env, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def check(found: dict[str, dict[str, Any]], tolerance: float) -> None:
    """Check that all sides trained the same model, and both tracked ones have the same metrics.

    Raises:
        RuntimeError: they differ.
    """
    for side in SIDES[1:]:
        for one, other in zip(found["untracked"]["losses"], found[side]["losses"], strict=True):
            agree(one, other, f"val/loss ({side})", tolerance)
    for name in WATCHED:
        agree(found["tracked"]["metrics"][name], found["tracked, copy"]["metrics"][name], name, tolerance)


def run(args: argparse.Namespace) -> list[Table]:
    """The table of ratios."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.repeats):
        for side in SIDES:
            found[side].append(in_fresh_process(args, side))
        check({side: each[-1] for side, each in found.items()}, 0.0 if device_of(args).type == "cpu" else 1e-3)
    peaks = {side: statistics.median(each["peak"] for each in found[side]) for side in SIDES}
    above = {side: statistics.median(each["peak"] - each["libraries"] for each in found[side]) for side in SIDES}
    rows: list[list[Any]] = [
        [
            side,
            peaks[side] / MIB,
            peaks[side] / peaks["untracked"],
            above[side] / MIB,
            above[side] / above["untracked"],
        ]
        for side in SIDES
    ]
    title = (
        f"{args.model}, {args.rows} trained on, {args.rows} + {args.rows} scored, {args.epochs} epochs; "
        f"medians of {args.repeats}; {machine(device_of(args))}"
    )
    return [Table(title, ["", "peak MiB", "÷ untracked", "above libraries MiB", "÷ untracked "], rows)]


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = parser(__doc__, rows=300)
    made.set_defaults(repeats=3)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--side", choices=SIDES, help="measure this one in this process, and print it as JSON")
    return made


def main() -> None:
    """Print the table."""
    args = options().parse_args()
    if args.side:
        print(json.dumps(one_side(args)))  # noqa: T201
        return
    tell(args, "memory", run(args))


if __name__ == "__main__":
    main()
