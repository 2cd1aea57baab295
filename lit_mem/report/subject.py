"""What a report is about: a training run or an audit, and how many texts were scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mem.adapters.origin import DEFAULT_BASE
from lit_mem.errors import DataError
from lit_mem.functional.planning import Scored
from lit_mem.report.chain import Origin


def audit_of(origin: Origin, config: Mapping[str, Any]) -> dict[str, str]:
    """What an audit measured.

    Returns:
        `command` ("validate" or "test"), `of` ("adapter", "checkpoint" or "model") and `name`: its path, or the model's
        id; empty where that is not recorded.
    """
    model = config.get("model") or {}
    command = origin.command or "validate"
    if origin.checkpoint:
        return {"command": command, "of": "checkpoint", "name": str(origin.checkpoint[-1])}
    if model.get("adapter_path"):
        return {"command": command, "of": "adapter", "name": str(model["adapter_path"])}
    return {"command": command, "of": "model", "name": base_of(model)}


def base_of(model: Mapping[str, Any]) -> str:
    """The base's id, from the options of the model; "" where that is not known."""
    if model.get("model_id") or "model_id" not in model:
        return str(model.get("model_id") or "")
    return "the base of the adapter" if model.get("adapter_path") else DEFAULT_BASE


def scored_of(checks: Mapping[str, Any] | None, path: Path, examples: Mapping[str, Any] | None = None) -> Scored | None:
    """How many texts were scored, by `checks.json`, else by the table of examples.

    Args:
        checks: the content of `checks.json`; None: there is none.
        path: of that file, for messages.
        examples: the part of the report on the table of examples; None: there is none.

    Returns:
        The counts; None where neither has them.

    Raises:
        DataError: `scored` in `checks.json` is not four counts.
    """
    found = (checks or {}).get("scored")
    if found is None:
        sizes = [(checks or {}).get(name) for name in ("n_members", "n_heldout")]
        return None if examples is None else Scored(examples["n_members"], examples["n_heldout"], *sizes)
    keys = ("members", "heldout", "of_members", "of_heldout")
    counts = [found.get(key) if isinstance(found, Mapping) else None for key in keys]
    whole = [n for n in counts if isinstance(n, int) and n >= 0]
    if len(whole) != len(keys):
        raise DataError(f"{path}: scored is {found!r:.80}; expected the counts {', '.join(keys)}")
    return Scored(*whole)


def scored_text(scored: Scored | None) -> str:
    """How many texts of each set were scored, in words.

    >>> scored_text(Scored(25, 25, 95, 25))
    '25 of 95 members scored, 25 held-out texts'
    """
    if scored is None:
        return ""
    members, heldout = (
        f"{n:,}" if n == of or of is None else f"{n:,} of {of:,}"
        for n, of in ((scored.members, scored.of_members), (scored.heldout, scored.of_heldout))
    )
    return f"{members} members scored, {heldout} held-out texts"


def set_sizes(scored: Scored | None, checks: Mapping[str, Any] | None, data: Mapping[str, Any]) -> tuple[str, str]:
    """Members and held-out texts for the table of the setup; never "all" of an unknown number.

    Args:
        scored: how many were scored; None: not recorded.
        checks: the content of `checks.json`; None: there is none.
        data: of the configuration.
    """
    cells = []
    for part, size in (("members", "train_size"), ("heldout", "heldout_size")):
        n = None if scored is None else getattr(scored, part)
        of = (checks or {}).get(f"n_{part}") if scored is None else getattr(scored, f"of_{part}")
        of = data.get(size) if of is None else of
        if not isinstance(of, int):
            cells.append("" if n is None else f"{n:,} scored")
        elif n is None:
            cells.append(f"{of:,}; how many of them were scored is not recorded")
        else:
            cells.append(f"{of:,}, all scored" if n == of else f"{of:,}, {n:,} of them scored")
    return cells[0], cells[1]
