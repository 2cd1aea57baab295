"""A tracked epoch of a model with random weights against an untracked one: a part of `benchmarks.gpu`."""

from __future__ import annotations

import argparse
import random
from typing import Final

from benchmarks.fits import Case, Fit, fit
from benchmarks.gpu_setting import Session, free, peak_gib, random_module
from benchmarks.setting import agree
from benchmarks.table import Cell, Table
from lit_mem.data import TextDataModule
from lit_mem.data.sources import CaseReports
from lit_mem.data.sources.given import Given

EPOCHS: Final = 1
SHARES: Final = ["", "seconds", "÷ untracked epoch", "TFLOP/s", "share of the device's rate", "peak GiB"]


def tracking(session: Session) -> Table:
    """Both fits, and where a tracked epoch goes.

    Raises:
        RuntimeError: their held-out losses differ, or in float32 on a CPU their weights.
    """
    args = fit_options(session)
    warm_up = argparse.Namespace(**vars(args) | {"precision": "32-true"})
    fit(warm_up, Case("warm-up", 2, 2), tracked=True, epochs=1)  # of the bundled model: libraries are loaded
    case = Case("as many", args.texts, args.texts)
    untracked, less = measured(session, args, case, tracked=False)
    tracked, more = measured(session, args, case, tracked=True)
    check(session, untracked, tracked)
    return table(session, case, untracked, tracked, (less, more))


def fit_options(session: Session) -> argparse.Namespace:
    """The options of `benchmarks.fits`."""
    precision = "32-true" if session.args.dtype == "float32" else "bf16-mixed"
    given = {"model": "asset:tiny_llama", "source": "CaseReports", "folder": None, "precision": precision}
    return argparse.Namespace(**vars(session.args) | given)


def word_texts(args: argparse.Namespace, train: int, scored: int, kind: type[TextDataModule]) -> TextDataModule:
    """Data of texts of random words of the bundled case reports, each cut to `--length` tokens."""
    words = " ".join(CaseReports().load().train["completion"]).split()
    generator = random.Random(0)

    def made(count: int) -> list[str]:
        return [" ".join(generator.choices(words, k=args.length)) for _ in range(count)]

    source = Given({"train": made(train), "heldout": made(scored)})
    options = {"max_length": args.length, "batch_size": args.batch, "scoring_tokens": args.scoring_tokens}
    return kind(source, members_size=scored, check=False, **options)


def measured(session: Session, args: argparse.Namespace, case: Case, tracked: bool) -> tuple[Fit, float | None]:
    """One fit, and its peak GiB."""
    free(session.device)
    done = fit(args, case, tracked, EPOCHS, make=random_module, texts=word_texts)
    return done, peak_gib(session.device)


def check(session: Session, untracked: Fit, tracked: Fit) -> None:
    """Check that both sides trained the same model.

    Raises:
        RuntimeError: held-out losses or trained weights differ.
    """
    exact = session.exact and session.device.type == "cpu"
    for one, other in zip(untracked.clock.losses, tracked.clock.losses, strict=True):
        agree(one, other, "val/loss", 0.0 if exact else 1e-2)  # attention's backward pass on a GPU is non-deterministic
    if exact and untracked.weights != tracked.weights:
        raise RuntimeError("the sides differ: tracking changed the trained weights")


def table(
    session: Session, case: Case, untracked: Fit, tracked: Fit, peaks: tuple[float | None, float | None]
) -> Table:
    """Seconds of the parts of both sides' last epoch."""
    one, other = untracked.clock, tracked.clock
    epoch, parameters = one.epochs[-1], session.shape.multiplied
    scoring, generation = other.metrics["time/scoring"], other.metrics["time/generation"]
    rest = other.after_training[-1] - scoring - generation
    parts: dict[str, tuple[float, float]] = {  # seconds, operations
        "untracked: epoch": (epoch, 0),
        "untracked: training": (one.training[-1], 4 * parameters * untracked.trained),
        "untracked: held-out loss": (one.after_training[-1], 2 * parameters * untracked.scored),
        "tracked: epoch": (other.epochs[-1], 0),
        "tracked: training": (other.training[-1], 4 * parameters * tracked.trained),
        "tracked: scoring pass": (scoring, 2 * parameters * tracked.scored),
        "tracked: extraction": (generation, 0),
        "tracked: metrics, plots, checkpoints": (rest, 0),
        "tracked: validation before training": (other.before, 0),
    }
    rows: list[list[Cell]] = []
    for name, (took, operations) in parts.items():
        rate = operations / took if operations else None
        reached = None if rate is None else rate / session.rates.flops
        peak = {"untracked: epoch": peaks[0], "tracked: epoch": peaks[1]}.get(name)
        rows.append([name, took, took / epoch, None if rate is None else rate / 1e12, reached, peak])
    title = f"Epoch of a fit, adapter off as the reference; texts of {session.args.length} tokens, {case}"
    return Table(title, SHARES, rows, [f"{tracked.trained} tokens trained on, {tracked.scored} scored."])
