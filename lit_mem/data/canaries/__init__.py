"""Canaries: texts inserted to measure whether they are memorized, one file per kind."""

from lit_mem.data.canaries.base import Canary, CanarySource, Content, Setting
from lit_mem.data.canaries.bigram import Bigram
from lit_mem.data.canaries.lines import Lines
from lit_mem.data.canaries.new_tokens import NewTokens
from lit_mem.data.canaries.random_tokens import RandomTokens
from lit_mem.data.canaries.secrets import Secrets
from lit_mem.data.canaries.traps import Traps
from lit_mem.data.canaries.unigram import Unigram
from lit_mem.data.canaries.unlikely_suffix import UnlikelySuffix

__all__ = [
    "Bigram",
    "Canary",
    "CanarySource",
    "Content",
    "Lines",
    "NewTokens",
    "RandomTokens",
    "Secrets",
    "Setting",
    "Traps",
    "Unigram",
    "UnlikelySuffix",
]
