"""Each validation and test of a trainer as a line of the run's record."""

from __future__ import annotations

from collections.abc import Mapping

import lightning.pytorch as pl

from lit_mem.audit.loop import Audit, known_of
from lit_mem.audit.table import joined
from lit_mem.files.record import FILE, Line, Stop, append
from lit_mem.lightning.limited import rules_in
from lit_mem.lightning.of_trainer import step_of
from lit_mem.lightning.run_folder import known_folder, run_folder


def claim(trainer: pl.Trainer) -> None:
    """Have the run's folder be known by the end of the pass, where loggers or checkpoints are kept; on every rank.

    A dry run (`fast_dev_run`) keeps no record, nor does a run that writes no other file.

    Raises:
        OSError: the folder cannot be made.
    """
    if trainer.loggers and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        run_folder(trainer)


def write(trainer: pl.Trainer, audit: Audit, metrics: Mapping[str, float], complete: bool = True) -> None:
    """Append what a pass measured; acts on rank zero only.

    The check before training is recorded where it is whole and the run is new.

    Args:
        trainer: its run has the folder.
        audit: that has finished the pass, or was stopped in it.
        metrics: all that are known of the pass.
        complete: whether every measure was computed.

    Raises:
        OSError: the line cannot be written.
    """
    folder, result = known_folder(trainer), audit.result
    if folder is None or result is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    run = result.run
    if run.resumed_check or not run.complete:
        return
    tables = [one.rows for measure, one in result.results.items() if one.rows is not None and not measure.of_canaries]
    rows = joined(tables)
    line = Line(
        run.stage,
        epoch=run.epoch,
        step=run.step,
        logged_step=0 if run.checking else step_of(trainer),
        complete=complete,
        members=int(rows.member.sum()) if tables else None,
        heldout=int((~rows.member).sum()) if tables else None,
        metrics={name: float(metrics[name]) for name in sorted(metrics)},
        absent=dict(known_of(audit.measures).absent),
        stop=_stops(trainer),
    )
    append(folder / FILE, line)


def _stops(trainer: pl.Trainer) -> list[Stop]:
    stops = []
    for rule in rules_in(trainer):
        texts = [f"{one.name} {'>' if one.above else '<'} {one.limit!r}" for one in rule.limits]
        stops.append(Stop(rule.set_by, texts, rule.counted, rule.limits.lower_bound))
    return stops
