"""A frozen base model sharded over devices, with an adapter replicated on each."""

from importlib import import_module
from typing import Any

from lit_mem.sharding.lockstep import Lockstep

__all__ = ["Lockstep"]

_STRATEGY = "lit_mem.lightning.sharded_strategy"


def __getattr__(name: str) -> Any:
    """`ShardedBase` under the name that configurations use, imported lazily: this package does not need Lightning."""
    if name == "ShardedBase":
        return getattr(import_module(_STRATEGY), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
