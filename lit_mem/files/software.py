"""Package versions shown in runs and reports."""

from __future__ import annotations

from importlib import metadata
from typing import Final

_PACKAGES: Final = ("lit_mem", "torch", "lightning", "transformers", "peft", "opacus", "datasets", "matplotlib")


def versions() -> dict[str, str]:
    """The installed versions, by package."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
