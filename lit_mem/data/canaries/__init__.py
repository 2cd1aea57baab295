"""Canaries: one small file for each kind of text that is inserted to see whether it is memorized."""

from lit_mem.data.canaries.base import Canary, CanarySource, Content, Setting
from lit_mem.data.canaries.lines import Lines
from lit_mem.data.canaries.random_tokens import RandomTokens
from lit_mem.data.canaries.secrets import Secrets
from lit_mem.data.canaries.traps import Traps

__all__ = ["Canary", "CanarySource", "Content", "Lines", "RandomTokens", "Secrets", "Setting", "Traps"]
