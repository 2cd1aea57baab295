"""Cost of tracking: a tracked epoch against the same epoch untracked. One run, ratios only, sides in turns.

Both sides are real fits of the same texts with the same seed, adapter as in `configs/smollm2_phee.yaml`:

- untracked: the training epoch, then the loss of the held-out texts, in this project's length-grouped batches; no
  callback, no logger, no checkpoint.
- tracked: the same epoch and the same held-out texts with all callbacks and loggers of `configs/smollm2_phee.yaml`:
  members are scored too, all metrics and plots are made, texts are generated, checkpoints are written.

Two cases. "as many": as many members and as many held-out texts are scored as are trained on (`--rows`). "few": 500 of
each are scored while `--trained` texts are trained on; below 3000 a sixth, which is the same share. Extraction prompts
100 members and 100 held-out texts as always (fewer only if fewer are scored), so that in a shortened "few" its share is
larger than on the whole corpus.

If the sides' training seconds differ, the machine is the cause, since both train identically; `training counted alike`
is the ratio with both sides' median instead.

Each fit also measures before its first step, which is when the reference is scored and outputs of the base model are
generated: `before training`. `first epoch` and `later epochs` have them cached. Held-out losses after every epoch and
all trained weights must be bit-identical on both sides (on a GPU: the losses to 0.1 %).

    python -m benchmarks.tracking
    python -m benchmarks.tracking --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 100 --repeats 1
    python -m benchmarks.tracking --case few --trained 2898 --scored 500 --epochs 1 --repeats 1
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.fits import Case, Clock, Fit, fit
from benchmarks.setting import agree, device_of, flops_rate, machine, parser
from benchmarks.table import Table, tell

WHOLE, FEW = 3000, 500


class Sides(NamedTuple):
    """Fits of both sides."""

    untracked: list[Fit]
    tracked: list[Fit]


def cases(args: argparse.Namespace) -> list[Case]:
    """Both, or the selected ones."""
    trained = args.trained or args.rows
    scored = min(FEW, max(2, -(-trained * FEW // WHOLE)))
    both = [Case("as many", args.rows, args.rows), Case("few", trained, args.scored or scored)]
    return [case for case in both if args.case in (None, case.name)]


def measure(args: argparse.Namespace, case: Case) -> Sides:
    """Fits of both sides in turns, checked to have trained the same."""
    sides = Sides([], [])
    for _ in range(args.repeats):
        sides.untracked.append(fit(args, case, tracked=False, epochs=args.epochs))
        sides.tracked.append(fit(args, case, tracked=True, epochs=args.epochs))
    check(sides, exact=device_of(args).type == "cpu")
    return sides


def check(sides: Sides, exact: bool) -> None:
    """Check that both sides trained the same model.

    Raises:
        RuntimeError: held-out losses or trained weights differ.
    """
    for left, right in zip(sides.untracked, sides.tracked, strict=True):
        # Attention's backward pass on a GPU is non-deterministic.
        for one, other in zip(left.clock.losses, right.clock.losses, strict=True):
            agree(one, other, "val/loss", tolerance=0.0 if exact else 1e-3)
        if exact and left.weights != right.weights:
            raise RuntimeError("the sides differ: tracking changed the trained weights")


def tables(args: argparse.Namespace, case: Case, sides: Sides) -> list[Table]:
    """The ratios, and where a tracked epoch's time goes."""
    title = f"{args.model}, {case}; medians of {args.repeats} fits of {args.epochs} epochs; {machine(device_of(args))}"
    # Both sides train bit-identically; differences in time are the machine's.
    alike = median([*sides.untracked, *sides.tracked], lambda clock: clock.training)
    ratios = Table(title, ["", "untracked s", "tracked s", "tracked ÷ untracked", "training counted alike"], [])
    untracked, tracked = (median(side, lambda clock: [clock.before]) for side in sides)
    ratios.rows.append(["before training", untracked, tracked, tracked / untracked, None])
    for name, first, end in (("first epoch", 0, 1), ("later epochs", 1, None))[: args.epochs]:
        which = slice(first, end)
        untracked, tracked = (_median_of(side, "epochs", which) for side in sides)
        less, more = (alike + _median_of(side, "after_training", which) for side in sides)
        ratios.rows.append([name, untracked, tracked, tracked / untracked, more / less])
    return [ratios, _shares(args, sides)]


def median(fits: list[Fit], read: Callable[[Clock], list[float]]) -> float:
    """The median over all fits of what `read` returns for each clock."""
    return statistics.median(value for each in fits for value in read(each.clock))


def _median_of(fits: list[Fit], name: str, which: slice) -> float:
    return median(fits, lambda clock: getattr(clock, name)[which])


def _shares(args: argparse.Namespace, sides: Sides) -> Table:
    """Where the later epochs go, or the only one."""
    later = slice(1 if args.epochs > 1 else 0, None)
    epoch = _median_of(sides.untracked, "epochs", later)
    training = _median_of(sides.tracked, "training", later)
    scoring = median(sides.tracked, lambda clock: [clock.metrics["time/scoring"]])
    generation = median(sides.tracked, lambda clock: [clock.metrics["time/generation"]])
    parts = {
        "untracked: training": _median_of(sides.untracked, "training", later),
        "untracked: held-out loss": _median_of(sides.untracked, "after_training", later),
        "tracked: training": training,
        "tracked: scoring pass": scoring,
        "tracked: extraction": generation,
        "tracked: metrics, plots, checkpoints": _median_of(sides.tracked, "after_training", later)
        - scoring
        - generation,
    }
    one = sides.tracked[0]
    notes = [f"{one.trained} tokens trained on, {one.scored} scored."]
    if device_of(args).type == "cuda":
        # No gradients of the frozen base's weights: the backward pass costs about as much as the forward pass.
        rates = 2 * flops_rate(one.parameters, one.trained, training), flops_rate(one.parameters, one.scored, scoring)
        notes.append("achieved TFLOP/s: training {:.2f}, scoring {:.2f}.".format(*(rate / 1e12 for rate in rates)))
    rows: list[list[Any]] = [[name, took, took / epoch] for name, took in parts.items()]
    which = "the later epochs go" if args.epochs > 1 else "the epoch goes"
    return Table(f"where {which}", ["", "s", "÷ untracked epoch"], rows, notes)


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = parser(__doc__, rows=300)
    made.set_defaults(repeats=3)
    made.add_argument("--trained", type=int, help='texts trained on in "few"; none: as --rows')
    made.add_argument("--scored", type=int, help='members and held-out texts scored in "few", each; none: see above')
    made.add_argument("--epochs", type=int, default=3, help="of each fit; 1 for large corpora")
    made.add_argument("--case", choices=["as many", "few"], help="only this one")
    return made


def run(args: argparse.Namespace) -> list[Table]:
    """All tables."""
    fit(args, Case("warm-up", 2, 2), tracked=True, epochs=1)  # libraries are loaded, or the first side would pay
    return [table for case in cases(args) for table in tables(args, case, measure(args, case))]


def main() -> None:
    """Print the tables."""
    made = options()
    args = made.parse_args()
    if args.epochs < 1:
        made.error("--epochs: expected at least 1")
    tell(args, "tracking", run(args))


if __name__ == "__main__":
    main()
