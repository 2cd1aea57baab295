"""Location of the cache. Standard library only, so that `lit-mem doctor` works with a broken installation."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """The folder for the downloads `name`.

    It is in `$LIT_MEM_CACHE`, else `$XDG_CACHE_HOME/lit_mem`, else `~/.cache/lit_mem`.
    """
    own = os.environ.get("LIT_MEM_CACHE")
    if own:
        return Path(own).expanduser() / name
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lit_mem" / name
