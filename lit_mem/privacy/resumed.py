"""The ledger of a resumed private run: that of the checkpoint's run, with its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_mem.errors import CheckpointError
from lit_mem.privacy.accountant import Steps, merged, number_of_steps
from lit_mem.privacy.ledger import Ledger


def history_of(spent: Mapping[str, Any]) -> tuple[Steps, ...]:
    """The steps recorded in a checkpoint."""
    return tuple(Steps(float(noise), float(rate), int(number)) for noise, rate, number in spent["history"])


def compare(ledger: Ledger, spent: Mapping[str, Any]) -> None:
    """Compare a ledger with a checkpoint of its run: the steps up to then, and the hash of the last line.

    Raises:
        CheckpointError: they differ.
    """
    known = history_of(spent)
    there = _first(ledger.history, number_of_steps(known))
    chain = spent.get("ledger_chain", "")
    if there != merged(known):
        raise CheckpointError(
            f"the privacy ledger {ledger.path} has other steps than this checkpoint: {_shown(there)}; expected "
            f"{_shown(known)}. one of the two was changed"
        )
    if chain and not ledger.holds(chain):
        raise CheckpointError(
            f"the privacy ledger {ledger.path} has no line with the hash (chain) {chain[:16]}… of this checkpoint: it "
            "was rewritten or changed, so the spent budget is unknown; expected the ledger of its run"
        )


def _first(history: Sequence[Steps], number: int) -> tuple[Steps, ...]:
    """The first `number` steps."""
    found = []
    for steps in history:
        found.append(steps._replace(number=min(steps.number, number)))
        number -= found[-1].number
    return merged(found)


def _shown(history: Sequence[Steps]) -> str:
    parts = [f"{n} steps with noise multiplier {noise:g} and sample rate {rate:g}" for noise, rate, n in history]
    return ", ".join(parts) or "no step"


def ledger_of(spent: Mapping[str, Any], given: str | None, checkpoint: str | None) -> Ledger:
    """The ledger that a run resumed from a checkpoint must continue.

    Args:
        spent: the checkpoint's privacy state (`Spent`).
        given: `model.privacy.ledger`.
        checkpoint: path of the checkpoint.

    Raises:
        CheckpointError: it does not exist, belongs to another run, or does not match the checkpoint.
    """
    places = [Path(given)] if given is not None else [Path(spent["ledger"])]
    if given is None and checkpoint is not None:  # moved together with the checkpoint
        name = places[0].name
        places += [folder / name for folder in list(Path(checkpoint).absolute().parents)[:2]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise CheckpointError(
            f"its privacy ledger {places[0]} does not exist, and without it steps taken after this checkpoint would "
            "not count; restore it, or set model.privacy.ledger to its path"
        )
    ledger = Ledger(path)
    taken = number_of_steps(history_of(spent))
    if ledger.id != spent["ledger_id"] or ledger.steps < taken:
        raise CheckpointError(
            f"the privacy ledger {path} is not the one of this checkpoint: it begins with {ledger.id or 'nothing'} and "
            f"has {ledger.steps} steps; expected {spent['ledger_id']} and at least {taken}"
        )
    compare(ledger, spent)
    return ledger
