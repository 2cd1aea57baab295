"""Memorization metrics for Hugging Face's Trainer and its subclasses, such as TRL's trainers."""

from lit_mem.hf.callback import MemorizationCallback
from lit_mem.hf.canaries import CanarySet, insert_canaries

__all__ = ["CanarySet", "MemorizationCallback", "insert_canaries"]
