"""Ways to make a base model trainable: one small file an adapter family."""

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.full import FullFineTuning
from lit_mem.adapters.lora import LoRA

__all__ = ["Adapter", "FullFineTuning", "LoRA"]
