"""The base that an adapter was trained on: read from its folder, and compared with the run's base."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import ModelError
from lit_mem.files.untrusted import LARGEST_CONFIG, read_json

log = logging.getLogger(__name__)

DEFAULT_BASE: Final = "meta-llama/Llama-2-7b-hf"
"""Used if a run sets neither a base nor an adapter."""

RECORD: Final = "lit_mem.json"
"""File beside an exported adapter; peft does not read it."""

_IN_CACHE: Final = re.compile(r"models--(.+?)--(.+?)(?:/|$)")


def adapter_config(folder: str, option: str = "model.adapter_path") -> dict[str, Any]:
    """The configuration that peft saved with an adapter; `option` is the option with the folder, for messages.

    Raises:
        ModelError: the folder does not exist, holds no adapter, or its configuration cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"{option} {folder!r} is not a folder; expected one saved by peft")
    file = path / "adapter_config.json"
    if not file.is_file():
        raise ModelError(f"{option} {folder!r} has no adapter_config.json; expected a peft adapter folder")
    found = read_json(file, ModelError, LARGEST_CONFIG)
    if not isinstance(found, dict) or "peft_type" not in found:
        raise ModelError(f"{file} is not the configuration of an adapter: it has no peft_type")
    return found


def own_base(folder: str) -> tuple[str, str | None]:
    """The base that an adapter was trained on, and its revision: from lit_mem's record, else from peft's configuration.

    peft records neither a revision nor a single file: for a GGUF base it records the folder, and for a bundled one the
    path in that installation.

    Raises:
        ModelError: as for `adapter_config`, or it names no base.
    """
    config = adapter_config(folder)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    recorded = _recorded(Path(folder)) or {}
    if isinstance(recorded.get("base"), str) and recorded["base"]:
        name, revision = recorded["base"], recorded.get("revision", revision)
    if not isinstance(name, str) or not name:
        raise ModelError(f"model.adapter_path {folder!r} does not name its base; set model.model_id")
    if Path(name).is_absolute() and not Path(name).exists():
        raise ModelError(
            f"model.adapter_path {folder!r} names the base {name!r}, which does not exist here; set model.model_id"
        )
    return name, revision if isinstance(revision, str) and revision else None


def origin(model_id: str, fingerprint: Mapping[str, str], revision: str | None = None) -> dict[str, Any]:
    """The record of the base in an exported adapter's `lit_mem.json`.

    Args:
        model_id: hub id or path of the base.
        fingerprint: `models.fingerprint.fingerprint` of the base.
        revision: revision on the hub; None: the main branch, or not a hub id.
    """
    return {"base": model_id, "revision": revision, "fingerprint": dict(fingerprint)}


def check_origin(
    folder: str, base: str, fingerprint: Callable[[], Mapping[str, str]], option: str = "model.adapter_path"
) -> None:
    """Compare the base that an adapter was trained on with the run's base.

    An adapter exported by lit_mem has its base's fingerprint. For others only the base's name is known: a warning is
    logged if it differs.

    Args:
        folder: folder of the adapter.
        base: hub id or folder of the run's base.
        fingerprint: returns its `models.fingerprint.fingerprint`; called only if there is one to compare with.
        option: the option with the folder, for messages.

    Raises:
        ModelError: the fingerprints differ.
    """
    recorded = _recorded(Path(folder))
    if recorded is not None:
        there, here = recorded["fingerprint"], fingerprint()
        # Quantization changes all weights except embeddings and norms: then only those can be compared.
        which = "full" if there["full"] and here["full"] else "light"
        if there[which] != here[which]:
            raise ModelError(
                f"{option} {folder!r} was trained on the base {recorded['base']!r} (fingerprint "
                f"{there[which]}), but this run's base is {base!r} ({here[which]}); expected the same weights: set "
                "model.model_id to the adapter's base"
            )
        return
    name = adapter_config(folder, option).get("base_model_name_or_path")
    if isinstance(name, str) and name and not _same(name, base):
        log.warning(
            "Warning: %s %r was trained on the base %r (its adapter_config.json), but this run's base is "
            "%r: unless both have the same weights, all metrics are those of a model that was never trained. Set "
            "model.model_id to the adapter's base, or remove it.",
            option, folder, name, base,
        )  # fmt: skip


def private_steps(folder: Path) -> int:
    """Number of steps in the privacy ledger of an exported adapter or model; 0 if not recorded."""
    try:
        found = read_json(folder / RECORD, ModelError, LARGEST_CONFIG)["private_steps"]
    except (OSError, ModelError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def adapter_at(place: str, revision: str | None = None) -> str | None:
    """The base of the adapter in a folder or hub id ("" if it names none); None if it is not an adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    folder = Path(place)
    if folder.is_dir():
        found: str | None = str(folder / "adapter_config.json")
    else:
        try:
            found = find_adapter_config_file(place, revision=revision or "main")
        except Exception:  # such as a malformed id; loading it raises a one-line error
            return None
    if found is None or not Path(found).is_file():
        return None
    try:
        name = read_json(Path(found), ModelError, LARGEST_CONFIG).get("base_model_name_or_path")
    except (ModelError, AttributeError):
        name = None
    return name if isinstance(name, str) else ""


def reject_adapter(option: str, model_id: str, place: str, revision: str | None, advice: str) -> None:
    """Reject an adapter where a whole model is expected.

    Loaded as a model, the adapter's weights would become part of the base, as if present before training.

    Args:
        option: the option, for the message.
        model_id: value of the option.
        place: folder or hub id.
        revision: revision of the hub id.
        advice: what to do instead.

    Raises:
        ModelError: it is an adapter.
    """
    base = adapter_at(place, revision)
    if base is not None:
        of = f" of the base {base!r}" if base else ""
        raise ModelError(f"{option} {model_id!r} is an adapter{of}; expected a full model: {advice}")


def _recorded(folder: Path) -> dict[str, Any] | None:
    """The value of `origin` when the adapter was exported; None for an adapter from elsewhere or an older version."""
    try:
        found = read_json(folder / RECORD, ModelError, LARGEST_CONFIG)
        digests = found["fingerprint"]
        return found if isinstance(digests["light"], str) and isinstance(digests["full"], str) else None
    except (OSError, ModelError, KeyError, TypeError):
        return None


def _same(recorded: str, base: str) -> bool:
    """Whether two names are known to refer to the same model."""
    if recorded == base:
        return True
    first, second = Path(recorded).expanduser(), Path(base).expanduser()
    if first.exists() and second.exists():
        return first.resolve() == second.resolve()
    return hub_id(recorded) == hub_id(base)


def hub_id(name: str) -> str:
    """The hub id, also for a folder in the hub cache."""
    found = _IN_CACHE.search(Path(name).as_posix())
    return f"{found[1]}/{found[2]}" if found else name
