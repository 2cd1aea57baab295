"""Prompted extraction: prompt the model with a prefix of a text, compare the continuation with the true suffix."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.bert_score import BertScore
from lit_mem.extraction.bleu import Bleu
from lit_mem.extraction.edit import EditSimilarity
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.ngram import NgramRate
from lit_mem.extraction.ngram_memorization import NgramMemorization
from lit_mem.extraction.rouge import RougeL
from lit_mem.extraction.semantic import SemanticSimilarity
from lit_mem.extraction.substring import LongestCommonSubstring

if TYPE_CHECKING:
    from lit_mem.extraction.discoverable import Discoverable
    from lit_mem.extraction.exact_memorization import ExactMemorization
    from lit_mem.extraction.ngram_hits import NgramHits
    from lit_mem.extraction.scored import ScoredMeasure
    from lit_mem.extraction.strength import ExtractionStrength

__all__ = [
    "BertScore",
    "Bleu",
    "Continuation",
    "Discoverable",
    "EditSimilarity",
    "ExactMatch",
    "ExactMemorization",
    "ExtractionMeasure",
    "ExtractionStrength",
    "LongestCommonSubstring",
    "NgramHits",
    "NgramMemorization",
    "NgramRate",
    "RougeL",
    "ScoredMeasure",
    "SemanticSimilarity",
]

_SCORED = {
    "Discoverable": "lit_mem.extraction.discoverable",
    "ExactMemorization": "lit_mem.extraction.exact_memorization",
    "ExtractionStrength": "lit_mem.extraction.strength",
    "NgramHits": "lit_mem.extraction.ngram_hits",
    "ScoredMeasure": "lit_mem.extraction.scored",
}


def __getattr__(name: str) -> Any:
    """Import the measures of the scoring pass lazily: they load torch, which the options of a command do not need."""
    if name in _SCORED:
        return getattr(import_module(_SCORED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
