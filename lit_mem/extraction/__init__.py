"""Prompted extraction: give the model a prefix of a text, compare what it writes with the true suffix."""

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.ngram import NgramRate

__all__ = ["Continuation", "ExactMatch", "ExtractionMeasure", "NgramRate"]
