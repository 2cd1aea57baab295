"""Sum the steps of several ledgers: each counts once, even if an adapter's or a later run's ledger repeats it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lit_mem.privacy.accountant import Steps
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.ledger_lines import Start

_Kind = tuple[str, float, float]


def by_start(starts: Iterable[Start]) -> dict[_Kind, Start]:
    """The starts of one ledger, merged by id and kind of steps."""
    found: dict[_Kind, Start] = {}
    for start in starts:
        before = found.get(_kind(start))
        found[_kind(start)] = start if before is None else _with(before, before.steps.number + start.steps.number)
    return found


def missing(starts: Iterable[Start], ledger: Ledger | None) -> list[Start]:
    """The starts missing from a ledger; for each, the number of steps that it lacks.

    Args:
        starts: starts of another ledger.
        ledger: None: an empty one.
    """
    there = {} if ledger is None else by_start(ledger.starts)
    found = []
    for kind, start in by_start(starts).items():
        number = start.steps.number - (there[kind].steps.number if kind in there else 0)
        if number > 0:
            found.append(_with(start, number))
    return found


def together(ledgers: Iterable[Ledger]) -> list[Start]:
    """The starts of several ledgers; one in several ledgers counts once, with its maximum number of steps."""
    found: dict[_Kind, Start] = {}
    for ledger in ledgers:
        for kind, start in by_start(ledger.starts).items():
            before = found.get(kind, start)
            most = before if before.steps.number >= start.steps.number else start
            # An exported ledger has no corpus digest; the run's ledger has.
            found[kind] = most._replace(
                corpus=before.corpus or start.corpus, unaccounted=before.unaccounted or start.unaccounted
            )
    return list(found.values())


def export(ledger: Ledger, path: Path) -> None:
    """Write the spent budget next to an adapter: one line per start, without the corpus digest.

    The ledger is published with the adapter. With a digest, anyone who has an earlier one could see whether the
    training set was changed in between.

    Args:
        ledger: ledger of the run.
        path: path of a new file.

    Raises:
        OSError: it cannot be written.
    """
    Ledger(path).copy(start._replace(corpus="") for start in by_start(ledger.starts).values())


def _kind(start: Start) -> _Kind:
    return start.id, start.steps.noise_multiplier, start.steps.sample_rate


def _with(start: Start, number: int) -> Start:
    return start._replace(steps=Steps(start.steps.noise_multiplier, start.steps.sample_rate, number))
