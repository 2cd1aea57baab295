"""The measures as entries of `trainer.callbacks`, with the same options."""

from __future__ import annotations

from lit_mem.audit import measures
from lit_mem.lightning.measure_callback import Listed


class Canaries(measures.Canaries, Listed):
    __doc__ = measures.Canaries.__doc__


class Correlation(measures.Correlation, Listed):
    __doc__ = measures.Correlation.__doc__


class Extractability(measures.Extractability, Listed):
    __doc__ = measures.Extractability.__doc__


class Extraction(measures.Extraction, Listed):
    __doc__ = measures.Extraction.__doc__


class MembershipInference(measures.MembershipInference, Listed):
    __doc__ = measures.MembershipInference.__doc__


class Movers(measures.Movers, Listed):
    __doc__ = measures.Movers.__doc__


class Perplexity(measures.Perplexity, Listed):
    __doc__ = measures.Perplexity.__doc__


class Persons(measures.Persons, Listed):
    __doc__ = measures.Persons.__doc__


class PrivacyAudit(measures.PrivacyAudit, Listed):
    __doc__ = measures.PrivacyAudit.__doc__


class PromptSpanExtraction(measures.PromptSpanExtraction, Listed):
    __doc__ = measures.PromptSpanExtraction.__doc__


class Slices(measures.Slices, Listed):
    __doc__ = measures.Slices.__doc__


class SlidingExtraction(measures.SlidingExtraction, Listed):
    __doc__ = measures.SlidingExtraction.__doc__


class SpanExtraction(measures.SpanExtraction, Listed):
    __doc__ = measures.SpanExtraction.__doc__


class Turns(measures.Turns, Listed):
    __doc__ = measures.Turns.__doc__


class UnpromptedLeaks(measures.UnpromptedLeaks, Listed):
    __doc__ = measures.UnpromptedLeaks.__doc__
