"""The measures, one file each."""

from lit_mem.audit.measures.base_metrics import BaseMetrics
from lit_mem.audit.measures.canaries import Canaries
from lit_mem.audit.measures.correlation import Correlation
from lit_mem.audit.measures.extractability import Extractability
from lit_mem.audit.measures.extraction import Extraction
from lit_mem.audit.measures.membership import MembershipInference
from lit_mem.audit.measures.movers import Movers
from lit_mem.audit.measures.perplexity import Perplexity
from lit_mem.audit.measures.persons import Persons
from lit_mem.audit.measures.privacy_audit import PrivacyAudit
from lit_mem.audit.measures.prompt_spans import PromptSpanExtraction
from lit_mem.audit.measures.slices import Slices
from lit_mem.audit.measures.sliding import SlidingExtraction
from lit_mem.audit.measures.spans import SpanExtraction
from lit_mem.audit.measures.turns import Turns
from lit_mem.audit.measures.unprompted import UnpromptedLeaks

__all__ = [
    "BaseMetrics",
    "Canaries",
    "Correlation",
    "Extractability",
    "Extraction",
    "MembershipInference",
    "Movers",
    "Perplexity",
    "Persons",
    "PrivacyAudit",
    "PromptSpanExtraction",
    "Slices",
    "SlidingExtraction",
    "SpanExtraction",
    "Turns",
    "UnpromptedLeaks",
]
