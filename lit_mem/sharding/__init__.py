"""A frozen base model spread over devices, an adapter on each of them."""

from lit_mem.sharding.lockstep import Lockstep
from lit_mem.sharding.strategy import ShardedBase

__all__ = ["Lockstep", "ShardedBase"]
