"""Opacus is an extra, imported only for private training."""

from __future__ import annotations

from lit_mem.errors import ConfigError


def import_opacus() -> None:
    """Import Opacus.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import opacus  # noqa: F401  (only to name the extra if it is missing)
    except ImportError as error:
        raise ConfigError("model.privacy needs the extra: pip install 'lit_mem[privacy]'") from error
