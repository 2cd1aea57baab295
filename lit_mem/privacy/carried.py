"""What the weights that a run starts from have spent before: the ledger that lies beside them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from lit_mem import program
from lit_mem.adapters.origin import RECORD, private_steps
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.accountant import Kind, Steps, epsilon, number_of_steps
from lit_mem.privacy.ledger import LEDGER, Ledger

log = logging.getLogger(__name__)

ONLY_LATER: Final = (
    "EPSILON COVERS ONLY THE STEPS OF THIS LEDGER. The weights that training started from were trained before, and "
    "what they show of those texts, which may be the same, is not bounded (model.privacy.allow_unaccounted_start)."
)
"""Where a private run starts from weights whose training no ledger has."""


def adds_up() -> str:
    """What to say of the epsilon of one run."""
    return (
        "Budgets add up: other private runs on the same texts spend as well; "
        f"{program.command()} privacy adds up their ledgers."
    )


def of_several(folder: Path) -> str:
    """What to say of the private runs below a folder, such as the trials of a sweep; "" where there is none."""
    if next(folder.rglob(LEDGER), None) is None:
        return ""
    return (
        "Each private trial has an epsilon of its own, and on the same texts they add up: "
        f"{program.command()} privacy {shlex.quote(str(folder))}"
    )


def ledger_beside(folder: Path) -> Ledger | None:
    """That of an exported adapter or merged model; None where there is none.

    Raises:
        CheckpointError: it is damaged, or has lost its lines or the last ones of them.
    """
    path = folder.absolute() / LEDGER
    if not path.is_file():
        return None
    ledger = Ledger(path)
    if not ledger.starts or ledger.steps < (expected := private_steps(folder)):
        found = f"holds {ledger.steps} of {expected} steps" if ledger.starts else "holds no start of a run"
        raise CheckpointError(
            f"{path} {found}, so what was spent cannot be told from it; expected the file as it was exported"
        )
    return ledger


def _start_of(module: Any) -> tuple[str, Ledger | None] | None:
    """The option that names weights which were trained before, and their ledger; None if they are those of a base."""
    adapter, base = getattr(module, "adapter_path", None), getattr(module, "model_id", None)
    if adapter is not None and (Path(adapter) / "adapter_config.json").is_file():  # others are refused when loaded
        return f"model.adapter_path {adapter}", ledger_beside(Path(adapter))
    folder = Path(base or "")
    if base and any((folder / name).is_file() for name in (LEDGER, RECORD)):  # a whole model that a run has written
        return f"model.model_id {base}", ledger_beside(folder)
    return None


def spent_before(module: Any, allowed: bool) -> tuple[Ledger | None, bool]:
    """The ledger of the weights that a private fit starts from, and whether they had training that it does not cover.

    Args:
        module: a `CausalLM`.
        allowed: `model.privacy.allow_unaccounted_start`.

    Raises:
        ConfigError: there was such training, and that is not allowed.
        CheckpointError: the ledger is damaged.
    """
    found = _start_of(module)
    if found is None:
        return None, False
    name, ledger = found
    unaccounted = ledger is None or ledger.unaccounted
    if unaccounted and not allowed:
        why = f"has no {LEDGER}" if ledger is None else f"has a {LEDGER} that does not cover all of its training"
        raise ConfigError(
            f"{name} {why}, so what it may show of the texts is not known, and model.privacy would leave that out of "
            "epsilon; expected an adapter that a private run exported, a new one (model.adapter), or "
            "model.privacy.allow_unaccounted_start true: epsilon then covers only the steps from here on"
        )
    return ledger, unaccounted


def remark(module: Any, stage: str) -> None:
    """Log what the weights that are loaded have spent, or that training from here on is not private.

    Raises:
        CheckpointError: their ledger is damaged.
    """
    name, ledger = _start_of(module) or ("", None)
    if ledger is None:
        return
    if stage != "fit":
        remark_on_epsilon(name, ledger.history, max(start.texts for start in ledger.starts), ledger.unaccounted)
    elif getattr(module, "private", None) is None:
        log.warning(
            "%s was trained with differential privacy, and model.privacy is not set: nothing bounds what the weights "
            "of this run show, of these texts or of those.", name,
        )  # fmt: skip


def remark_on_checkpoint(spent: Spent) -> None:
    """Log what the training of a checkpoint has spent.

    Args:
        spent: as the checkpoint keeps it.
    """
    history = [Steps(float(noise), float(rate), int(number)) for noise, rate, number in spent["history"]]
    remark_on_epsilon("The checkpoint", history, spent["texts"], spent.get("unaccounted", False))


def remark_on_epsilon(
    name: str, history: Sequence[Steps], texts: int, unaccounted: bool = False, kind: Kind = "prv"
) -> None:
    """Log the epsilon that these steps cost, at the usual delta.

    Args:
        name: of what was trained.
        history: the steps.
        texts: N.
        unaccounted: whether there was other training before.
        kind: which accountant.
    """
    delta = 1 / (10 * texts)
    try:
        spent = f"epsilon <= {epsilon(history, delta, kind):.4g} at delta {delta:.3g} for one row"
    except ConfigError as error:  # without Opacus
        spent = f"epsilon is not computed ({error})"
    log.info("%s was trained with differential privacy: %d steps, %s.", name, number_of_steps(history), spent)
    if unaccounted:
        log.warning("%s", ONLY_LATER)
