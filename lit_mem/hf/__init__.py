"""The door of Hugging Face's Trainer, TRL's trainers, and all that is made of them."""

from lit_mem.hf.callback import MemorizationCallback

__all__ = ["MemorizationCallback"]
