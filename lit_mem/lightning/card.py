"""The model card of an export, from the module and the pass that measured it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_mem.adapters.recorded import adapter_record
from lit_mem.audit.card import FILE, model_card
from lit_mem.audit.card_facts import Facts, Form
from lit_mem.data.checks import TrustReport
from lit_mem.files.record import Line
from lit_mem.functional.planning import Scored


def write_card(folder: Path, module: Any, line: Line | None, merged: bool = False) -> None:
    """Write the model card of an export, replacing peft's template.

    Args:
        folder: folder of the export, complete.
        module: module of the model.
        line: record of the pass that measured these weights; None without one.
        merged: whether the adapter is merged into its base.

    Raises:
        OSError: it cannot be written.
    """
    facts = facts_of(module, merged, (folder / "tokenizer_config.json").is_file())
    (folder / FILE).write_text(model_card(line, facts), "utf-8")


def facts_of(module: Any, merged: bool, tokenizer: bool) -> Facts:
    """Facts about a module's model for its card.

    Args:
        module: a `CausalLM`, or a custom module, of which less is known.
        merged: whether the adapter is merged into its base.
        tokenizer: whether the tokenizer is saved beside the model.
    """
    model: Any = module.language_model
    data: Any = getattr(getattr(module, "trainer", None), "datamodule", None)
    record = adapter_record(getattr(module, "adapter", None), model) or {}  # type: ignore[arg-type]
    adapter = record.get("peft")
    form: Form = "merged" if merged else "model" if adapter is None else "adapter"
    scored = data.scored_texts() if callable(getattr(data, "scored_texts", None)) else None
    members, heldout = (scored.of_members, scored.of_heldout) if isinstance(scored, Scored) else (None, None)
    built = getattr(module, "_scored_model", None)
    trust = getattr(module, "trust", None) or getattr(data, "trust", None)
    claim = getattr(module, "privacy_claim", lambda: None)
    return Facts(
        base=str(getattr(module, "model_id", None) or getattr(model.config, "_name_or_path", "") or "a model"),
        fingerprint=dict(getattr(module, "base_fingerprint", None) or {}),
        revision=getattr(module, "revision", None),
        form=form,
        adapter=adapter,
        data=str(getattr(data, "corpus_name", "")),
        members=members,
        heldout=heldout,
        reference="" if built is None else "adapter off" if built.reference.scorer is None else "copy",
        training=_training(module, data),
        privacy=claim(),
        tokenizer=tokenizer,
        warnings=tuple(trust.public_warnings()) if isinstance(trust, TrustReport) else (),
    )


def _training(module: Any, data: Any) -> dict[str, Any]:
    """Training options by which runs are compared."""
    trainer = getattr(module, "trainer", None)
    optimizers = getattr(trainer, "optimizers", None)
    group = optimizers[0].param_groups[0] if optimizers else {}
    found = {
        "optimizer": type(getattr(optimizers[0], "optimizer", optimizers[0])).__name__ if optimizers else None,
        "lr": group.get("initial_lr", group.get("lr")),
        "batch_size": getattr(data, "batch_size", None),
        "max_length": getattr(data, "max_length", None),
        "precision": getattr(trainer, "precision", None),
        "dtype": getattr(module, "dtype_name", None),
        "quantization": None if getattr(module, "quantization", "none") == "none" else module.quantization,
    }
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}
