"""A model that something else made, in the form of a configuration, for the report."""

from __future__ import annotations

from typing import Any

from lit_mem.audit.subject_models import Reference


def model_section(model: Any, reference: Reference) -> dict[str, Any]:
    """The section `model`: its base, its adapter and its reference.

    Args:
        model: with or without an adapter of peft's.
        reference: as it was given.
    """
    configs = getattr(model, "peft_config", None) or {}
    adapter = next(iter(configs.values()), None)
    kind = None if adapter is None else getattr(adapter.peft_type, "value", str(adapter.peft_type))
    options = {name: getattr(adapter, name, None) for name in ("r", "lora_alpha")}
    return {
        "model_id": getattr(getattr(model, "config", None), "_name_or_path", None),
        "adapter": None if kind is None else {"class_path": kind, "init_args": options},
        "reference": {"kind": kind_of(reference), "model_id": None},
    }


def kind_of(reference: Reference) -> str:
    """What a reference is called: its name or id, "copy" of one in memory, "none" without one."""
    return "none" if reference is None else reference if isinstance(reference, str) else "copy"
