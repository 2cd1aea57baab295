"""Callbacks that measure memorization in Lightning's validation loop, and act on it."""

from lit_mem.callbacks.baseline import Baseline
from lit_mem.callbacks.checkpoint import MemorizationCheckpoint
from lit_mem.callbacks.early_stopping import MemorizationEarlyStopping
from lit_mem.callbacks.example_table import PerExampleTable
from lit_mem.callbacks.listed import (
    Canaries,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    Movers,
    Perplexity,
    PrivacyAudit,
    Slices,
    SpanExtraction,
)
from lit_mem.callbacks.perplexity_drop import PerplexityDropWarning
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
