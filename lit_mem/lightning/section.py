"""The section `memorization:` of a configuration, beside measures listed under `trainer.callbacks`."""

from __future__ import annotations

from typing import Any, Final

from lit_mem.lightning import listed

NAME: Final = "memorization"

OF_TEXTS: Final = (
    "members", "heldout", "model", "tokenizer", "reference", "max_length", "members_size", "heldout_size", "fields",
    "scoring_tokens", "check", "seed", "chunk", "show_groups",
)  # fmt: skip
"""Options of `Memorization` for custom modules; on the command line the sections `model` and `data` replace them."""

UNMEASURED: Final = (
    "Nothing measures memorization: memorization.suite is none, and trainer.callbacks lists no measure; set "
    "memorization.suite to quick, standard or full."
)
BAREBONES: Final = "Nothing measures memorization: trainer.barebones is true, so nothing is logged."


def lists_measures(entries: Any) -> bool:
    """Whether `trainer.callbacks` of a parsed configuration lists a measure of `lit_mem.callbacks`."""
    names = [kind.__name__ for kind in vars(listed).values() if getattr(kind, "__module__", "") == listed.__name__]
    measures = {f"{place}.{name}" for name in names for place in ("lit_mem.callbacks", listed.__name__)}
    paths = (entry.get("class_path") for entry in entries or () if hasattr(entry, "get"))
    return any(path in measures for path in paths)


def is_default(section: Any, defaults: Any) -> bool:
    """Whether a parsed section has only default values."""
    return bool(_plain(section.as_dict()) == _plain(defaults.as_dict()))


def _plain(value: Any) -> Any:
    """Remove the class paths that jsonargparse adds to the fields of a default dataclass."""
    if not isinstance(value, dict):
        return value
    return {name: _plain(inner) for name, inner in value.get("init_args", value).items()}
