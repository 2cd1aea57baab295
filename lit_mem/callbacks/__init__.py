"""Lightning callbacks that measure memorization in the validation loop, and act on it."""

from lit_mem.lightning.baseline import Baseline
from lit_mem.lightning.checkpoint import MemorizationCheckpoint
from lit_mem.lightning.early_stopping import MemorizationEarlyStopping
from lit_mem.lightning.example_table import PerExampleTable
from lit_mem.lightning.listed import (
    Canaries,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    Movers,
    Perplexity,
    Persons,
    PrivacyAudit,
    PromptSpanExtraction,
    Slices,
    SlidingExtraction,
    SpanExtraction,
    Turns,
    UnpromptedLeaks,
)
from lit_mem.lightning.perplexity_drop import PerplexityDropWarning
from lit_mem.lightning.stopwatch import Stopwatch
from lit_mem.lightning.table import EpochTable

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
    "Persons",
    "PrivacyAudit",
    "PromptSpanExtraction",
    "Slices",
    "SlidingExtraction",
    "SpanExtraction",
    "Stopwatch",
    "Turns",
    "UnpromptedLeaks",
]
