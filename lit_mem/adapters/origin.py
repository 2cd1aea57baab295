"""Which base an adapter was made for: read from its folder, and compared with the base that it is put on."""

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
"""Of a run that names neither a base nor an adapter of one."""

RECORD: Final = "lit_mem.json"
"""File beside an exported adapter; peft does not read it."""

_IN_CACHE: Final = re.compile(r"models--(.+?)--(.+?)(?:/|$)")


def adapter_config(folder: str, option: str = "model.adapter_path") -> dict[str, Any]:
    """The configuration that peft saved with an adapter; `option` names the folder, for messages.

    Raises:
        ModelError: the folder does not exist, holds no adapter, or its configuration cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"{option} {folder!r} is no folder; expected one that peft has saved")
    file = path / "adapter_config.json"
    if not file.is_file():
        raise ModelError(f"{option} {folder!r} holds no adapter_config.json; expected a peft adapter folder")
    found = read_json(file, ModelError, LARGEST_CONFIG)
    if not isinstance(found, dict) or "peft_type" not in found:
        raise ModelError(f"{file} is not the config of an adapter: it names no peft_type")
    return found


def own_base(folder: str) -> tuple[str, str | None]:
    """The base that an adapter was trained on, and its revision: as its run recorded it, else as peft's configuration.

    peft knows neither a revision nor a single file: of a base in GGUF it names the folder, and of a bundled one the
    path in this installation.

    Raises:
        ModelError: as for `adapter_config`, or it names none.
    """
    config = adapter_config(folder)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    recorded = _recorded(Path(folder)) or {}
    if isinstance(recorded.get("base"), str) and recorded["base"]:
        name, revision = recorded["base"], recorded.get("revision", revision)
    if not isinstance(name, str) or not name:
        raise ModelError(f"model.adapter_path {folder!r} does not name its base; expected model.model_id beside it")
    if Path(name).is_absolute() and not Path(name).exists():
        raise ModelError(
            f"model.adapter_path {folder!r} names the base {name!r}, which is not here; set model.model_id"
        )
    return name, revision if isinstance(revision, str) and revision else None


def origin(model_id: str, fingerprint: Mapping[str, str], revision: str | None = None) -> dict[str, Any]:
    """What an exported adapter's `lit_mem.json` holds of its base.

    Args:
        model_id: of the base.
        fingerprint: `models.fingerprint.fingerprint` of it.
        revision: on the hub; None: the main branch, or no hub id.
    """
    return {"base": model_id, "revision": revision, "fingerprint": dict(fingerprint)}


def check_origin(
    folder: str, base: str, fingerprint: Callable[[], Mapping[str, str]], option: str = "model.adapter_path"
) -> None:
    """Compare the base that an adapter was made for with the one that it is put on.

    An adapter that this package exported carries its base's fingerprint. Of others only the base's name is known: if it
    is another one, a warning is logged.

    Args:
        folder: of the adapter.
        base: name of the base here: hub id or folder.
        fingerprint: gives `models.fingerprint.fingerprint` of it; called only where there is one to compare with.
        option: that names the folder, for messages.

    Raises:
        ModelError: the fingerprints differ.
    """
    recorded = _recorded(Path(folder))
    if recorded is not None:
        there, here = recorded["fingerprint"], fingerprint()
        # Quantization changes all but embeddings and norms: then only those can be compared.
        which = "full" if there["full"] and here["full"] else "light"
        if there[which] != here[which]:
            raise ModelError(
                f"{option} {folder!r} was trained on the base {recorded['base']!r} (fingerprint "
                f"{there[which]}), and the base here is {base!r} ({here[which]}); expected the same weights: set "
                "model.model_id to the adapter's base"
            )
        return
    name = adapter_config(folder, option).get("base_model_name_or_path")
    if isinstance(name, str) and name and not _same(name, base):
        log.warning(
            "Warning: %s %r was trained on the base %r (its adapter_config.json), and the base here is "
            "%r: unless both hold the same weights, all metrics are those of a model that nobody trained. Set "
            "model.model_id to the adapter's base, or leave it out.",
            option, folder, name, base,
        )  # fmt: skip


def private_steps(folder: Path) -> int:
    """How many steps the privacy ledger beside an exported adapter or model had; 0 where that is not recorded."""
    try:
        found = read_json(folder / RECORD, ModelError, LARGEST_CONFIG)["private_steps"]
    except (OSError, ModelError, KeyError, TypeError):
        return 0
    return found if isinstance(found, int) else 0


def adapter_at(place: str, revision: str | None = None) -> str | None:
    """The base of the adapter that a folder or hub id holds ("" if it names none); None where it holds no adapter."""
    from transformers.utils.peft_utils import find_adapter_config_file

    folder = Path(place)
    if folder.is_dir():
        found: str | None = str(folder / "adapter_config.json")
    else:
        try:
            found = find_adapter_config_file(place, revision=revision or "main")
        except Exception:  # a malformed id, for one; loading it raises the same, in one line
            return None
    if found is None or not Path(found).is_file():
        return None
    try:
        name = read_json(Path(found), ModelError, LARGEST_CONFIG).get("base_model_name_or_path")
    except (ModelError, AttributeError):
        name = None
    return name if isinstance(name, str) else ""


def refuse_adapter(option: str, model_id: str, place: str, revision: str | None, advice: str) -> None:
    """Reject an adapter where a whole model is expected.

    Loaded as a model, its base would get the adapter's weights, and these count as what was there before training.

    Args:
        option: which names it, for the message.
        model_id: as the user wrote it.
        place: folder or hub id.
        revision: of the hub id.
        advice: what to do instead.

    Raises:
        ModelError: it is one.
    """
    base = adapter_at(place, revision)
    if base is not None:
        of = f" of the base {base!r}" if base else ""
        raise ModelError(f"{option} {model_id!r} is an adapter{of}; expected a whole model: {advice}")


def _recorded(folder: Path) -> dict[str, Any] | None:
    """What `origin` gave when the adapter was exported; None for an adapter from elsewhere or of an older version."""
    try:
        found = read_json(folder / RECORD, ModelError, LARGEST_CONFIG)
        digests = found["fingerprint"]
        return found if isinstance(digests["light"], str) and isinstance(digests["full"], str) else None
    except (OSError, ModelError, KeyError, TypeError):
        return None


def _same(recorded: str, base: str) -> bool:
    """Whether two names are known to be of one model."""
    if recorded == base:
        return True
    first, second = Path(recorded).expanduser(), Path(base).expanduser()
    if first.exists() and second.exists():
        return first.resolve() == second.resolve()
    return hub_id(recorded) == hub_id(base)


def hub_id(name: str) -> str:
    """A hub id, for one of its folders in the hub cache too."""
    found = _IN_CACHE.search(Path(name).as_posix())
    return f"{found[1]}/{found[2]}" if found else name
