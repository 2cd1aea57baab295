"""Check and measure a GPU with a model of LLaMA 2 7B's shape and random weights: no weights, no downloads.

First checks, with the bundled model (see `benchmarks.gpu_checks`): scores are those of the CPU, the adapter turned off
gives the base back, and a resumed fit ends in the same weights. Then, with random weights in bfloat16 that are made on
the device, a LoRA of rank 16 on value and output, and texts of random tokens:

- training: a step. Ours (texts packed where that pays, the output layer's gradient computed with the loss), the same
  with gradient checkpointing, and padded with an attention mask.
- scoring: a pass with each attention kernel. Ours (`TokenScorer`, in a validation's batches), and batches in the order
  given, padded, with an attention mask and all logits at once. Twice: texts of one length, and of many.
- extraction: `lit_mem.generation.decoding.decode`, and `model.generate` in the same batches, and in batches of
  `--batch`. No token ends a text. In bfloat16 near ties may be decided otherwise; `share equal` is the share of tokens
  before the outputs of a prompt diverge from ours.
- tracking: an epoch of a fit with everything that `configs/smollm2_phee.yaml` measures, logs and keeps, and one with
  the held-out loss alone; on texts of random words. The reference is the model with its adapter off.

Each beside what the device reaches in the model's matrix products alone (training, scoring), or in a copy of memory
(extraction, which reads all weights for every token). Peaks are those of torch's allocator; none on a CPU.

Sides are checked to agree. A part that fails, or for which memory is short, gives one line, and the others still run;
then the exit code is 1. On an H200 all of it is meant to take less than `--seconds`, after which no further repeat or
part begins. Without a GPU the shape is `toy`.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --out results --only checks scoring
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import torch

from benchmarks.gpu_checks import CUBLAS, checks, one_line
from benchmarks.gpu_parts import KERNELS, extraction, scoring, training, without
from benchmarks.gpu_setting import CONTEXT, SHAPES, Session, copy_rate, free, matrix_rate
from benchmarks.gpu_tracking import tracking
from benchmarks.setting import device_of, machine, now, quieten
from benchmarks.setting import options as common_options
from benchmarks.sizes import Machine
from benchmarks.table import Cell, Table, write

Part = Callable[[Session], Table]
PARTS: Final = ("checks", "rates", "training", "scoring", "extraction", "tracking")
LARGE: Final = {"rows": 64, "length": 256, "prompts": 32, "texts": 32, "scoring_tokens": 8192, "copied": 2**32}
SMALL: Final = {"rows": 12, "length": 32, "prompts": 6, "texts": 6, "scoring_tokens": 256, "copied": 2**26}
"""Defaults by shape; `copied` is the size of the copy in bytes, larger than any cache."""


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = common_options(__doc__, repeats=3)
    made.add_argument("--shape", choices=SHAPES, help="sizes of the model; none: 7b on a GPU, toy on a CPU")
    made.add_argument("--dtype", choices=["bfloat16", "float32"], help="none: bfloat16 on a GPU, float32 on a CPU")
    for name, what in (
        ("rows", "texts scored"),
        ("length", "tokens of the longest text"),
        ("prompts", "texts continued"),
        ("texts", "texts trained on in the tracked epoch; as many members and held-out texts are scored"),
        ("scoring_tokens", "data.scoring_tokens"),
    ):
        made.add_argument(f"--{name}", type=int, help=f"{what}; none: {LARGE[name]}, with toy {SMALL[name]}")
    made.add_argument("--batch", type=int, default=8, help="texts of a step, and of a padded batch")
    made.add_argument("--seconds", type=float, default=480.0, help="no further repeat or part begins after these")
    made.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    made.add_argument("--traceback", action="store_true", help="show the full traceback of a part that fails")
    return made


def completed(args: argparse.Namespace) -> argparse.Namespace:
    """The options with their defaults for the device and the shape.

    Raises:
        SystemExit: there is no such device, or an option is out of range.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device is cuda, but torch finds no CUDA GPU; expected cpu or auto")
    if set(args.only) - {"checks", "rates"}:
        args.only = [*args.only, "rates"]  # what the others are compared with
    on_gpu = device_of(args).type == "cuda"
    args.shape = args.shape or ("7b" if on_gpu else "toy")
    args.dtype = args.dtype or ("bfloat16" if on_gpu else "float32")
    for name, value in (SMALL if args.shape == "toy" else LARGE).items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    for name, least in (("rows", 2), ("length", 16), ("prompts", 1), ("texts", 2), ("batch", 1), ("repeats", 1)):
        if getattr(args, name) < least:
            sys.exit(f"--{name} is {getattr(args, name)}; expected at least {least}")
    if args.length > CONTEXT:
        sys.exit(f"--length is {args.length}; expected at most {CONTEXT}, the model's context")
    return args


def rates(session: Session) -> Table:
    """The device's own rates, which are kept in the session."""
    args = session.args
    flops = matrix_rate(session.shape, session.device, args.dtype, args.scoring_tokens)
    session.rates = Machine(flops, copy_rate(session.device, args.copied))
    found: list[list[Cell]] = [
        [f"matrix products of the model's shapes, {args.scoring_tokens} tokens, TFLOP/s", flops / 1e12],
        [f"a copy of {args.copied / 2**30:.3g} GiB, GB/s read and written", session.rates.bandwidth / 1e9],
    ]
    shape = f"{args.shape} ({session.shape.parameters:,} parameters), {args.dtype}, random weights"
    return Table(f"{shape}; {machine(session.device)}", ["", "rate"], found)


WORK: Final[dict[str, Part]] = {
    "checks": checks,
    "rates": rates,
    "training": training,
    "extraction": extraction,
    "tracking": tracking,
}


def parts(session: Session) -> Iterator[tuple[str, Part, str | None]]:
    """The chosen parts: name, work, and why it cannot run here, if so."""
    for name in PARTS:
        if name not in session.args.only:
            continue
        if name == "scoring":
            for kernel in KERNELS:
                yield f"scoring, {kernel}", partial(scoring, kernel=kernel), without(kernel)
        else:
            yield name, WORK[name], None


def run(args: argparse.Namespace, show: Callable[[list[Table]], None]) -> Session:
    """Measure everything; all tables so far are shown whenever one more is there.

    Returns:
        The session, with what failed.
    """
    args = completed(args)
    os.environ.setdefault(*CUBLAS)
    quieten()
    start, tables = time.perf_counter(), []
    session = Session(args, device_of(args), SHAPES[args.shape], now() + args.seconds)
    for name, part, reason in parts(session):
        if session.over:
            reason = f"{name}: not measured, as --seconds {args.seconds:g} are over"
        if reason is not None:
            session.notes.append(reason)
        elif (table := guarded(session, name, part)) is not None:
            tables.append(table)
            show(tables)
        free(session.device)
    outcome: list[list[Cell]] = [["failed", len(session.failed)], ["not measured", len(session.notes)]]
    took = f"{time.perf_counter() - start:.0f} s in all."
    show([*tables, Table("Outcome", ["", "parts"], outcome, [*session.failed, *session.notes, took])])
    return session


def guarded(session: Session, name: str, part: Part) -> Table | None:
    """The table of a part; None if it raised, which is then one line of the session."""
    try:
        return part(session)
    except torch.OutOfMemoryError as error:
        lower = "lower --batch, --length, --scoring_tokens, or choose a smaller --shape"
        session.failed.append(f"{name}: out of memory; {lower} ({one_line(error)})")
    except Exception as error:  # nothing is known of the device: the other parts still run
        session.failed.append(f"{name}: {one_line(error)}")
        if session.args.traceback:
            traceback.print_exc()
    return None


def main() -> None:
    """Print the tables as they come; exit code 1 if something failed."""
    args = options().parse_args()

    def show(tables: list[Table]) -> None:
        print(tables[-1].text() + "\n", flush=True)  # noqa: T201  (what it is for)
        write(args, "gpu", tables)

    session = run(args, show)
    if session.failed:
        sys.exit(f"failed: {len(session.failed)}; the first: {session.failed[0]}")


if __name__ == "__main__":
    main()
