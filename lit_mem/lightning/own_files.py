"""Files for the report of a run whose module and data are custom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from torch import nn

from lit_mem.audit.facts import started_facts, with_model, with_texts
from lit_mem.audit.setting import model_section, source_of, write_config
from lit_mem.data.chunks import setting_of
from lit_mem.data.prepare import Prepared
from lit_mem.files.facts import Facts, now, write_facts
from lit_mem.files.origin import CONFIG, write_origin
from lit_mem.functional.planning import Scored
from lit_mem.lightning.checks_file import write_checks
from lit_mem.lightning.run_folder import run_folder

if TYPE_CHECKING:
    from lit_mem.lightning.own_pass import OwnTexts


def describe(
    trainer: pl.Trainer, model: nn.Module, texts: OwnTexts, length: int, found: Prepared, scored: Scored
) -> None:
    """Write `checks.json` and `facts.json`, and `config.yaml` and `run.json` if the run has no configuration.

    All processes must call it.

    Args:
        trainer: trainer of the run; without loggers, or in a dry run, nothing is written.
        model: the measured model.
        texts: options of the scored texts.
        length: maximum number of tokens of a text.
        found: the prepared texts.
        scored: number of texts scored.

    Raises:
        OSError: a file cannot be written.
    """
    if not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    folder = run_folder(trainer)
    if found.texts.trust is not None:
        write_checks(trainer, found.texts.trust, scored)
    if trainer.is_global_zero:
        write_facts(folder, lambda: _facts(trainer, model, found))
    if not trainer.is_global_zero or (folder / CONFIG).exists():
        return
    write_config(folder, _setting(trainer, model, texts, length))
    command = trainer.state.fn.value if trainer.state.fn is not None else "fit"
    write_origin(folder, command, trainer.ckpt_path, trainer.global_step)


def _facts(trainer: pl.Trainer, model: nn.Module, found: Prepared) -> Facts:
    facts = with_model(started_facts(now()), model, trainer.state.fn == "fit", trainer.global_step)
    return with_texts(facts, found)


def _setting(trainer: pl.Trainer, model: nn.Module, texts: OwnTexts, length: int) -> dict[str, Any]:
    optimizer = next(iter(trainer.optimizers), None) if trainer.state.fn == "fit" else None
    section = model_section(model, texts.reference)
    if optimizer is not None:
        rate = optimizer.param_groups[0].get("lr")
        section["optimizer"] = {"class_path": type(optimizer).__name__, "init_args": {"lr": rate}}
    return {
        "door": "lit_mem.Memorization with members",
        "model": section,
        "data": {"source": source_of(texts.members, texts.heldout), "max_length": length} | setting_of(texts.chunk),
        "trainer": {"max_epochs": trainer.max_epochs},
    }
