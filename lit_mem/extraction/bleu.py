"""BLEU of one continuation against its true suffix."""

from __future__ import annotations

from lit_mem.errors import check_range
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.precision import own_precision
from lit_mem.functional.words import words


class Bleu(ExtractionMeasure):
    """Geometric mean of the n-gram precisions, n = 1 … `order`, times the brevity penalty; torchmetrics' `bleu_score`.

    Words are separated by white space; case and punctuation count. In scripts without spaces between words, such as
    Chinese or Thai, each character counts as a word.

    There is no smoothing: a continuation that shares no `order` consecutive words with the true suffix scores 0. That
    is right for a measure of copying; smoothing would credit any text with a common word. A mean over texts is
    therefore low, and dominated by few of them.

    Args:
        order: the longest n-gram that counts. For a true suffix of fewer words the order is its number of words,
            so that a short exact copy scores 1.

    Raises:
        ConfigError: `order` is below 1.

    Source: Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation";
    Ippolito et al. 2023 call a continuation approximately memorized from 0.75 on.
    """

    def __init__(self, order: int = 4) -> None:
        check_range("Bleu.order", order, at_least=1)
        self.order = order

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        import torch
        from torchmetrics.functional.text.bleu import bleu_score  # takes longer to import than torch

        generated, truth = words(continuation.generated), words(continuation.truth)
        with own_precision(torch.float64):  # torchmetrics splits at white space
            return float(bleu_score([" ".join(generated)], [[" ".join(truth)]], n_gram=min(self.order, len(truth))))
