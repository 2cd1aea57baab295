"""Prompted extraction: prompt the model with a prefix of a text, compare the continuation with the true suffix."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.bert_score import BertScore
from lit_mem.extraction.bleu import Bleu
from lit_mem.extraction.discoverable import Discoverable
from lit_mem.extraction.edit import EditSimilarity
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.exact_memorization import ExactMemorization
from lit_mem.extraction.ngram import NgramRate
from lit_mem.extraction.ngram_hits import NgramHits
from lit_mem.extraction.ngram_memorization import NgramMemorization
from lit_mem.extraction.rouge import RougeL
from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.extraction.semantic import SemanticSimilarity
from lit_mem.extraction.strength import ExtractionStrength
from lit_mem.extraction.substring import LongestCommonSubstring

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
