"""What was trained and on which data, by a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_mem.report.subject import base_of


def setup_of(
    config: Mapping[str, Any], sizes: tuple[str, str] = ("", ""), audit: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """What was trained and on which data, or what was audited, a row a part; empty without a configuration.

    Args:
        config: of the run.
        sizes: of members and held-out texts, in words.
        audit: what was audited; None: the run trained.
    """
    model, data, trainer = (config.get(part) or {} for part in ("model", "data", "trainer"))
    if not model and not data:
        return []
    rows = {
        "Model": _words(base_of(model), model.get("revision") and f"revision {model['revision']}"),
        "Adapter": _words(model.get("adapter_path")) or _component(model.get("adapter")),
        "Reference": _words(
            (model.get("reference") or {}).get("model_id") or (model.get("reference") or {}).get("kind")
        ),
        "Data": _component(data.get("source")),
        "Members": sizes[0],
        "Held-out texts": sizes[1],
        "Length": _length(data),
        "Batch size": _words(data.get("batch_size")),
        "Optimizer": _component(model.get("optimizer"), ("lr", "weight_decay")),
        "Epochs": _words(trainer.get("max_epochs") and f"at most {trainer['max_epochs']}"),
        "Private training": _words("off" if not model.get("privacy") else "on, differential privacy"),
        "Canaries": _component(data.get("canaries")),
        "Seed": _words(config.get("seed_everything")),
    }
    if audit is not None:  # an audit does none of these
        rows |= {"Optimizer": "", "Epochs": "", "Batch size": "", "Private training": "", "Canaries": ""}
        rows |= {"Checkpoint": audit["name"]} if audit["of"] == "checkpoint" else {}
        rows |= {"Adapter": ""} if audit["of"] == "model" else {}
    return [{"what": what, "value": value} for what, value in rows.items() if value]


def _length(data: Mapping[str, Any]) -> str:
    """The longest text, and how a longer one is cut."""
    longest, chunk = data.get("max_length"), data.get("chunk")
    if not longest or chunk is None:
        return _words(longest and f"at most {longest} tokens")
    tokens = chunk.get("tokens") or longest
    stride = chunk.get("stride") or max(1, tokens // 2)
    return f"above {longest} tokens in windows of {tokens} with a stride of {stride}"


def _words(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part is not None and part is not False and part != "")


def _component(entry: Any, only: tuple[str, ...] = ()) -> str:
    """A class of the configuration with its options, except for those at null."""
    if not isinstance(entry, Mapping):
        return _words(entry)
    name = str(entry.get("class_path", "")).rpartition(".")[2]
    options = {
        k: v
        for k, v in (entry.get("init_args") or {}).items()
        if v not in (None, {}, []) and v is not False and (not only or k in only)
    }
    found = ", ".join(f"{k} {'+'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in options.items())
    return f"{name} ({found})" if found else name
