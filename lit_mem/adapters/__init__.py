"""Adapters: ways to make a base model trainable, one file per adapter family."""

from lit_mem.adapters.any_method import Peft
from lit_mem.adapters.base import Adapter
from lit_mem.adapters.full import FullFineTuning
from lit_mem.adapters.head import HeadOnly
from lit_mem.adapters.ia3 import IA3
from lit_mem.adapters.lora import LoRA
from lit_mem.adapters.prompt_tuning import PromptTuning

__all__ = ["IA3", "Adapter", "FullFineTuning", "HeadOnly", "LoRA", "Peft", "PromptTuning"]
