"""Callbacks that measure memorization in Lightning's validation loop, and act on it."""

from lit_mem.callbacks.baseline import Baseline
from lit_mem.callbacks.canaries import Canaries
from lit_mem.callbacks.checkpoint import MemorizationCheckpoint
from lit_mem.callbacks.correlation import Correlation
from lit_mem.callbacks.early_stopping import MemorizationEarlyStopping
from lit_mem.callbacks.example_table import PerExampleTable
from lit_mem.callbacks.extractability import Extractability
from lit_mem.callbacks.extraction import Extraction
from lit_mem.callbacks.membership import MembershipInference
from lit_mem.callbacks.movers import Movers
from lit_mem.callbacks.perplexity import Perplexity
from lit_mem.callbacks.perplexity_drop import PerplexityDropWarning
from lit_mem.callbacks.privacy_audit import PrivacyAudit
from lit_mem.callbacks.slices import Slices
from lit_mem.callbacks.spans import SpanExtraction
from lit_mem.callbacks.stopwatch import Stopwatch
from lit_mem.callbacks.table import EpochTable

__all__ = [
    "Baseline",
    "Canaries",
    "Correlation",
    "EpochTable",
    "Extractability",
    "Extraction",
    "MembershipInference",
    "MemorizationCheckpoint",
    "MemorizationEarlyStopping",
    "Movers",
    "PerExampleTable",
    "Perplexity",
    "PerplexityDropWarning",
    "PrivacyAudit",
    "Slices",
    "SpanExtraction",
    "Stopwatch",
]
