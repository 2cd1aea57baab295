"""The door of Hugging Face's Trainer, TRL's trainers, and all that is made of them."""

from lit_mem.hf.callback import MemorizationCallback
from lit_mem.hf.canaries import CanarySet, insert_canaries

__all__ = ["CanarySet", "MemorizationCallback", "insert_canaries"]
