"""Provenance of a trainer's run, for `facts.json`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from lit_mem.audit.facts import adapter_files, all_parameters, started_facts, trained_parameters, with_texts
from lit_mem.data.prepare import Prepared
from lit_mem.files.facts import Facts


def facts_of(trainer: pl.Trainer, started: str) -> Facts:
    """Facts about module and data; custom ones may lack some. It runs no collective: call it on one process.

    Args:
        trainer: trainer of the run.
        started: the start time.
    """
    module: Any = trainer.lightning_module
    fit = trainer.state.fn == "fit"
    facts = replace(
        started_facts(started),
        base=str(getattr(module, "model_id", None) or ""),
        revision=getattr(module, "revision", None),
        fingerprint=dict(getattr(module, "base_fingerprint", None) or {}),
        trained=trained_parameters(module),
        parameters=all_parameters(module),
        adapter=() if fit else adapter_files(getattr(module, "adapter_path", None)),
    )
    texts: Any = getattr(getattr(trainer, "datamodule", None), "prepared_texts", None)
    found, others = texts() if callable(texts) else (None, None)
    return with_texts(facts, found, others) if isinstance(found, Prepared) else facts
