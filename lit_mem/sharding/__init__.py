"""A frozen base model spread over devices, an adapter on each of them."""

from typing import TYPE_CHECKING, Any

from lit_mem.sharding.lockstep import Lockstep

if TYPE_CHECKING:
    from lit_mem.sharding.strategy import ShardedBase

__all__ = ["Lockstep", "ShardedBase"]


def __getattr__(name: str) -> Any:
    """Import the strategy when it is used, so that the rest of the package does without Lightning."""
    if name == "ShardedBase":
        from lit_mem.sharding.strategy import ShardedBase

        return ShardedBase
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
