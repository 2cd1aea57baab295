"""Opacus is an extra, and is loaded when something private is trained."""

from __future__ import annotations

from lit_mem.errors import ConfigError


def import_opacus() -> None:
    """Load Opacus.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import opacus  # noqa: F401  (only to name the extra when it is absent)
    except ImportError as error:
        raise ConfigError("model.privacy needs the extra: pip install 'lit_mem[privacy]'") from error
