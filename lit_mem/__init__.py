"""lit_mem: see memorization while you fine-tune."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_mem.audit.run import run_audit as audit
    from lit_mem.lightning.datamodule import TextDataModule
    from lit_mem.lightning.memorization import Memorization
    from lit_mem.lightning.module import CausalLM

__version__ = "0.1.0"
__all__ = ["CausalLM", "Memorization", "TextDataModule", "audit"]

_PLACES = {
    "CausalLM": "lit_mem.lightning.module",
    "Memorization": "lit_mem.lightning.memorization",
    "TextDataModule": "lit_mem.lightning.datamodule",
}


def __getattr__(name: str) -> Any:
    """Import names lazily: the classes load Lightning, which the core does not need."""
    if name == "audit":
        return import_module("lit_mem.audit")  # a callable package
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
