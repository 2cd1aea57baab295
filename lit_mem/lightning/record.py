"""Write each validation and test of a trainer as a line of the run's record."""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakKeyDictionary

import lightning.pytorch as pl

from lit_mem.audit.loop import Audit
from lit_mem.audit.person_file import write_persons
from lit_mem.audit.record_line import line_of
from lit_mem.files.facts import now, write_facts
from lit_mem.files.record import FILE, Line, append
from lit_mem.lightning.facts import facts_of
from lit_mem.lightning.limited import rules_in
from lit_mem.lightning.of_trainer import step_of
from lit_mem.lightning.run_folder import known_folder, run_folder

_STARTED: WeakKeyDictionary[pl.Trainer, str] = WeakKeyDictionary()


def claim(trainer: pl.Trainer) -> None:
    """Determine the run's folder before the end of the pass, if the run has loggers; on every rank.

    A dry run (`fast_dev_run`) keeps no record, nor does a run that writes no other file.

    Raises:
        OSError: the folder cannot be created.
    """
    if trainer.loggers and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        run_folder(trainer)
        _STARTED.setdefault(trainer, now())


def write(trainer: pl.Trainer, audit: Audit, metrics: Mapping[str, float], complete: bool = True) -> None:
    """Append a pass to the record, and write its per-person results; acts on rank zero only.

    The first pass of a run also writes its provenance (`lit_mem.files.facts`).

    The check before training is recorded if it is complete and the run is new.

    Args:
        trainer: trainer of the run.
        audit: the Audit that has finished the pass, or was interrupted in it.
        metrics: all known metrics of the pass.
        complete: whether every measure was computed.

    Raises:
        OSError: the line, or the file of persons, cannot be written.
    """
    folder, result = known_folder(trainer), audit.result
    if folder is None or result is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    line = measured(trainer, audit, metrics, complete)
    if line is not None:
        write_facts(folder, lambda: facts_of(trainer, _STARTED.get(trainer) or now()))
        write_persons(folder, result)
        append(folder / FILE, line)


def measured(trainer: pl.Trainer, audit: Audit, metrics: Mapping[str, float], complete: bool = True) -> Line | None:
    """The record line of a pass; None if it is not recorded (`lit_mem.audit.record_line.line_of`).

    Args:
        trainer: trainer of the pass.
        audit: the Audit that ran it.
        metrics: all known metrics of it.
        complete: whether every measure was computed.
    """
    checking = audit.result is not None and audit.result.run.checking
    return line_of(audit, metrics, rules_in(trainer), 0 if checking else step_of(trainer), complete)
