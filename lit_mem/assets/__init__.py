"""Bundled assets: a tiny pretrained LLaMA and a synthetic corpus, so that everything runs offline.

>>> path("case_reports").name
'case_reports'
"""

import importlib.resources
from pathlib import Path
from typing import Final

from lit_mem.errors import ConfigError

PREFIX: Final = "asset:"
"""In front of the name of an asset where a path, model or template is given."""

NAMES: Final = ("case_reports", "notes", "tiny_llama")


def path(name: str) -> Path:
    """Find the folder of a bundled asset.

    Args:
        name: `tiny_llama` (model and tokenizer, for `from_pretrained`), `case_reports` (JSON
            Lines: train, heldout, test) or `notes` (JSON Lines: 210 texts with the person that each is about).

    Returns:
        The folder inside the installed package.

    Raises:
        ConfigError: there is no asset of this name.
    """
    if name not in NAMES:
        raise ConfigError(f"There is no bundled asset {name!r}. Choose from: {', '.join(NAMES)}.")
    return Path(str(importlib.resources.files("lit_mem") / "assets" / name))


def chat_template(name: str) -> str:
    """A bundled chat template, for a tokenizer that has none.

    Args:
        name: `chatml`.

    Raises:
        ConfigError: there is none of this name.
    """
    folder = Path(str(importlib.resources.files("lit_mem") / "assets" / "chat_templates"))
    names = sorted(file.stem for file in folder.glob("*.jinja"))
    if name not in names:
        raise ConfigError(f"There is no bundled chat template {name!r}. Choose from: {', '.join(names)}.")
    return (folder / f"{name}.jinja").read_text("utf-8")
