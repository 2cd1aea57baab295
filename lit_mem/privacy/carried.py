"""The budget already spent by the weights that a run starts from, from the ledger next to them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lit_mem import program
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.privacy.accountant import Kind, Steps, epsilon, number_of_steps
from lit_mem.privacy.ledger import LEDGER, Ledger

if TYPE_CHECKING:
    from lit_mem.models.checkpoint import Spent

log = logging.getLogger(__name__)

ONLY_LATER: Final = (
    "EPSILON COVERS ONLY THE STEPS OF THIS LEDGER. The initial weights were trained before; what they reveal about "
    "those "
    "texts, which may be the same ones, is not bounded (model.privacy.allow_unaccounted_start)."
)
"""Note on a private run that starts from weights without a ledger of their training."""


def adds_up() -> str:
    """Note on the epsilon of one run."""
    return (
        "Budgets add up: other private runs on the same texts also spend budget; "
        f"{program.command()} privacy adds up their ledgers."
    )


def of_several(folder: Path) -> str:
    """Note on the private runs below a folder, such as the trials of a sweep; "" if there are none."""
    if next(folder.rglob(LEDGER), None) is None:
        return ""
    return (
        "Each private trial has its own epsilon, and trials on the same texts add up: "
        f"{program.command()} privacy {shlex.quote(str(folder))}"
    )


def ledger_beside(folder: Path) -> Ledger | None:
    """The ledger of an exported adapter or merged model, or None.

    Raises:
        CheckpointError: it is damaged, or lines at its end are missing.
    """
    from lit_mem.adapters.origin import private_steps  # loads torch, which adding up ledgers does not need

    path = folder.absolute() / LEDGER
    if not path.is_file():
        return None
    ledger = Ledger(path)
    if not ledger.starts or ledger.steps < (expected := private_steps(folder)):
        found = f"has {ledger.steps} of {expected} steps" if ledger.starts else "has no start of a run"
        raise CheckpointError(f"{path} {found}, so the spent budget is unknown; expected the file as exported")
    return ledger


def _start_of(module: Any) -> tuple[str, Ledger | None] | None:
    """The option with previously trained weights, and their ledger; None if the weights are a base's."""
    from lit_mem.adapters.origin import RECORD

    adapter, base = getattr(module, "adapter_path", None), getattr(module, "model_id", None)
    if adapter is not None and (Path(adapter) / "adapter_config.json").is_file():  # others are rejected when loaded
        return f"model.adapter_path {adapter}", ledger_beside(Path(adapter))
    folder = Path(base or "")
    if base and any((folder / name).is_file() for name in (LEDGER, RECORD)):  # a full model written by a run
        return f"model.model_id {base}", ledger_beside(folder)
    return None


def spent_before(module: Any, allowed: bool) -> tuple[Ledger | None, bool]:
    """The ledger of the weights that a private fit starts from, and whether they had training that it does not cover.

    Args:
        module: a `CausalLM`.
        allowed: `model.privacy.allow_unaccounted_start`.

    Raises:
        ConfigError: there was such training, but it is not allowed.
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
            f"{name} {why}, so what it reveals about the texts is unknown, and model.privacy would omit it from "
            "epsilon; expected an adapter exported by a private run, a new one (model.adapter), or "
            "model.privacy.allow_unaccounted_start true: epsilon then covers only the steps from here on"
        )
    return ledger, unaccounted


def remark(module: Any, stage: str) -> None:
    """Log the budget spent by the loaded weights, or that training from here on is not private.

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
            "%s was trained with differential privacy, but model.privacy is not set: nothing bounds what the weights "
            "of this run reveal about these or the earlier texts.", name,
        )  # fmt: skip


def remark_on_checkpoint(spent: Spent) -> None:
    """Log the budget spent by a checkpoint's training.

    Args:
        spent: the checkpoint's privacy state.
    """
    history = [Steps(float(noise), float(rate), int(number)) for noise, rate, number in spent["history"]]
    remark_on_epsilon("The checkpoint", history, spent["texts"], spent.get("unaccounted", False))


def remark_on_epsilon(
    name: str, history: Sequence[Steps], texts: int, unaccounted: bool = False, kind: Kind = "prv"
) -> None:
    """Log the epsilon spent by these steps, at the default delta.

    Args:
        name: name of what was trained.
        history: the steps.
        texts: N.
        unaccounted: whether there was other, earlier training.
        kind: the accountant.
    """
    delta = 1 / (10 * texts)
    try:
        spent = f"epsilon <= {epsilon(history, delta, kind):.4g} at delta {delta:.3g} for one row"
    except ConfigError as error:  # without Opacus
        spent = f"epsilon is not computed ({error})"
    log.info("%s was trained with differential privacy: %d steps, %s.", name, number_of_steps(history), spent)
    if unaccounted:
        log.warning("%s", ONLY_LATER)
