"""lit_mem: see memorization while you fine-tune."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mem.lightning.datamodule import TextDataModule
    from lit_mem.lightning.memorization import Memorization
    from lit_mem.lightning.module import CausalLM

__version__ = "0.1.0"
__all__ = ["CausalLM", "Memorization", "TextDataModule"]

_PLACES = {
    "CausalLM": "lit_mem.lightning.module",
    "Memorization": "lit_mem.lightning.memorization",
    "TextDataModule": "lit_mem.lightning.datamodule",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is used: each loads Lightning, which the core does without."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
