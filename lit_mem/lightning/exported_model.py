"""Export a trained model for peft, transformers and vLLM: the adapter alone, or merged into its base."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lit_mem.adapters.origin import RECORD, origin
from lit_mem.errors import ModelError
from lit_mem.files import atomic
from lit_mem.files.record import Line
from lit_mem.lightning.card import write_card
from lit_mem.lightning.checkpoint_files import copy
from lit_mem.privacy.ledger import LEDGER

log = logging.getLogger(__name__)


def export_adapter(module: Any, folder: Path, epoch: int, step: int, line: Line | None) -> None:
    """Write the adapter, the tokenizer, the private run's ledger, the model card, and the checkpoint they belong to.

    Nothing is written for a module without a `language_model` that can be saved.

    Args:
        module: a LightningModule, or another object with `language_model` and `tokenizer`; after full fine-tuning the
            whole model is written.
        folder: destination.
        epoch: epoch of the checkpoint, from 1.
        step: its `global_step`.
        line: record of the pass that measured these weights; None without one.

    Raises:
        OSError: it cannot be written.
    """
    model: Any = getattr(module, "language_model", None)
    if not hasattr(model, "save_pretrained"):
        return
    # Without this option peft queries the Hub whether the vocabulary grew.
    model.save_pretrained(folder, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
    _save_tokenizer(module, folder)
    record = {"epoch": epoch, "global_step": step}
    if digests := getattr(module, "base_fingerprint", None):
        record |= origin(module.model_id, digests, getattr(module, "revision", None))  # type: ignore[arg-type]
    private = getattr(module, "private", None)
    if private is not None and (steps := private.export_ledger(folder)):
        record["private_steps"] = steps  # so that a truncated ledger is detected
    (folder / RECORD).write_text(json.dumps(record) + "\n", "utf-8")
    write_card(folder, module, line)


def write_merged(module: Any, adapter: Path | None, merged: Path, stage: Path, line: Line | None) -> None:
    """Merge an exported adapter into a fresh base, and write the result as one plain model; warn without an adapter.

    Args:
        module: loads the base.
        adapter: folder of the adapter; None if none was exported.
        merged: folder of the model, replaced atomically.
        stage: staging folder, removed afterwards.
        line: record of the pass that measured the adapter; None without one.

    Raises:
        OSError: it cannot be written.
    """
    if adapter is None or not hasattr(module, "merged") or not (adapter / "adapter_config.json").is_file():
        log.warning("Nothing to merge: there is no adapter folder beside the best checkpoint.")
        return
    try:
        model, fresh = module.merged(str(adapter)), stage / merged.name
    except ModelError as error:  # the checkpoints exist in any case
        log.warning("Not merged: %s. Set MemorizationCheckpoint.merge to false.", error)
        return
    with atomic.naming(merged):
        try:
            model.save_pretrained(fresh)
            _save_tokenizer(module, fresh)
            for name in (RECORD, LEDGER):  # these record earlier private training of the weights
                if (adapter / name).is_file():
                    copy(adapter / name, fresh / name)
            write_card(fresh, module, line, merged=True)
            atomic.sync(fresh)
            atomic.put(fresh, merged)
        finally:
            atomic.remove(stage)
    module.print(f"Best checkpoint as one merged model: {merged}")


def _save_tokenizer(module: Any, folder: Path) -> None:
    """Save the tokenizer that the texts were encoded with, and its chat template, if there is one."""
    data = getattr(getattr(module, "trainer", None), "datamodule", None)
    found: Any = getattr(data, "tokenizer_of_texts", None)
    try:
        found = found or getattr(module, "tokenizer", None)
    except ModelError:  # a base without one, on custom data
        return
    if hasattr(found, "save_pretrained"):
        found.save_pretrained(folder)
