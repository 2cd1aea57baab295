"""Describe a model from outside `lit_mem` in the form of a configuration, for the report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mem.audit.subject_models import Reference, name_of
from lit_mem.files import atomic
from lit_mem.files.origin import CONFIG


def model_section(model: Any, reference: Reference) -> dict[str, Any]:
    """The `model` section: base, adapter and reference.

    Args:
        model: the model, with or without a peft adapter.
        reference: the reference option as given.
    """
    configs = getattr(model, "peft_config", None) or {}
    adapter = next(iter(configs.values()), None)
    kind = None if adapter is None else getattr(adapter.peft_type, "value", str(adapter.peft_type))
    options = {name: getattr(adapter, name, None) for name in ("r", "lora_alpha")}
    return {
        "model_id": name_of(model) or None,
        "adapter": None if kind is None else {"class_path": kind, "init_args": options},
        "reference": {"kind": kind_of(reference), "model_id": None},
    }


def kind_of(reference: Reference) -> str:
    """Name of a reference: its word or id, "copy" for a model in memory, "none" without one."""
    return "none" if reference is None else reference if isinstance(reference, str) else "copy"


def source_of(members: Any, heldout: Any) -> dict[str, Any]:
    """Source of the given texts: the paths of those read from files."""
    sets = {"members": members, "heldout": heldout}
    files = {name: os.fspath(rows) for name, rows in sets.items() if isinstance(rows, str | os.PathLike)}
    return {"class_path": "TextFiles" if files else "texts given", "init_args": files}


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a configuration into a run's folder.

    Raises:
        OSError: it cannot be written.
    """
    # JSON is valid YAML, and needs no extra library.
    atomic.write_text(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False, default=str) + "\n")
