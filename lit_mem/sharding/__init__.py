"""A frozen base model spread over devices, an adapter on each of them."""

from importlib import import_module
from typing import Any

from lit_mem.sharding.lockstep import Lockstep

__all__ = ["Lockstep"]

_STRATEGY = "lit_mem.lightning.sharded_strategy"


def __getattr__(name: str) -> Any:
    """`ShardedBase` under the name that configurations use, imported when used: this room does without Lightning."""
    if name == "ShardedBase":
        return getattr(import_module(_STRATEGY), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
