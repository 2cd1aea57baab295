"""Versions of the packages that a run and a report name."""

from __future__ import annotations

from importlib import metadata
from typing import Final

_PACKAGES: Final = ("lit_mem", "torch", "lightning", "transformers", "peft", "opacus", "datasets", "matplotlib")


def versions() -> dict[str, str]:
    """The versions installed now, by package."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
