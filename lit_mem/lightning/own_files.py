"""What the report reads of a run whose module and data are not this package's."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch import nn

from lit_mem.audit.setting import model_section
from lit_mem.data.checks import TrustReport
from lit_mem.files import atomic
from lit_mem.files.origin import write_origin
from lit_mem.functional.planning import Scored
from lit_mem.lightning.checks_file import write_checks
from lit_mem.lightning.run_folder import CONFIG, run_folder

if TYPE_CHECKING:
    from lit_mem.lightning.own_pass import OwnTexts


def describe(
    trainer: pl.Trainer, model: nn.Module, texts: OwnTexts, length: int, trust: TrustReport | None, scored: Scored
) -> None:
    """Write `checks.json`, and where the run has no configuration `config.yaml` and `run.json`; all processes call it.

    Args:
        trainer: of the run; without loggers, or in a dry run, nothing is written.
        model: that is measured.
        texts: the options.
        length: longest text in tokens.
        trust: what the checks of the texts found; None: none were made.
        scored: how many texts are scored.

    Raises:
        OSError: a file cannot be written.
    """
    if not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    folder = run_folder(trainer)
    if trust is not None:
        write_checks(trainer, trust, scored)
    if not trainer.is_global_zero or (folder / CONFIG).exists():
        return
    config = _setting(trainer, model, texts, length)
    # JSON is YAML, and needs no library to write it safely.
    atomic.write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False, default=str) + "\n")
    command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
    write_origin(folder, command, trainer.ckpt_path, trainer.global_step)


def _setting(trainer: pl.Trainer, model: nn.Module, texts: OwnTexts, length: int) -> dict[str, Any]:
    files = {
        name: os.fspath(rows)
        for name, rows in (("members", texts.members), ("heldout", texts.heldout))
        if isinstance(rows, str | os.PathLike)
    }
    optimizer = next(iter(trainer.optimizers), None) if trainer.state.fn == "fit" else None
    section = model_section(model, texts.reference)
    if optimizer is not None:
        rate = optimizer.param_groups[0].get("lr")
        section["optimizer"] = {"class_path": type(optimizer).__name__, "init_args": {"lr": rate}}
    source = {"class_path": "TextFiles" if files else "texts given", "init_args": files}
    return {
        "door": "lit_mem.Memorization with members",
        "model": section,
        "data": {"source": source, "max_length": length},
        "trainer": {"max_epochs": trainer.max_epochs},
    }
