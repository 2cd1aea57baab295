"""Configurations that ship with the package, found by name from any folder.

>>> find("quickstart").name
'quickstart.yaml'
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Literal

Kind = Literal["run", "sweep"]


def folder() -> Path:
    """`lit_mem/configs` in an installed package; in a checkout, `configs` beside the package."""
    package = Path(str(importlib.resources.files("lit_mem")))
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names(kind: Kind | None = None) -> list[str]:
    """Paths below `configs` without suffix, such as `variants/4bit`.

    Args:
        kind: run: what `fit`, `validate` and `test` read; sweep: what `sweep` reads; None: all.
    """
    found = sorted(path.relative_to(folder()).with_suffix("").as_posix() for path in folder().rglob("*.yaml"))
    return [name for name in found if kind is None or (kind == "sweep") == (name.rpartition("/")[0] == "sweeps")]


def find(given: str) -> Path | None:
    """The file for a path or a name; an existing file at the path wins.

    Args:
        given: a path, or a name as in `names`, also as `configs/<name>.yaml`.

    Returns:
        None if there is neither.
    """
    if Path(given).is_file():
        return Path(given)
    name = given.removeprefix("configs/").removesuffix(".yaml")
    return folder() / f"{name}.yaml" if name in names() else None
