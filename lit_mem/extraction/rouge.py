"""ROUGE-L: longest common subsequence of words with the true suffix."""

from __future__ import annotations

import unicodedata
from typing import Literal, get_args

from lit_mem.errors import ConfigError
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.precision import own_precision
from lit_mem.functional.words import words

Part = Literal["fmeasure", "recall", "precision"]


class RougeL(ExtractionMeasure):
    """Longest common subsequence of words, relative to the words in the two texts; torchmetrics' `rouge_score`.

    Case and punctuation do not count, there is no stemming, and a word is a run of letters and digits of any script (in
    ASCII text these are the words of the ROUGE script). A true suffix without letters or digits, such as only emoji,
    is split at white space. In scripts without spaces between words, such as Chinese or Thai, each character counts as
    a word.

    Args:
        part: "recall" divides by the words of the true suffix, "precision" by those generated, "fmeasure" is the
            harmonic mean of both. Continuations are at most as long as the true suffix in tokens, so the three
            rarely differ much.

    Raises:
        ConfigError: `part` is not one of these.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """

    def __init__(self, part: Part = "fmeasure") -> None:
        if part not in get_args(Part):
            raise ConfigError(f"RougeL.part is {part!r}; expected one of {', '.join(get_args(Part))}")
        self.part = part

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        import torch
        from torchmetrics.functional.text.rouge import rouge_score  # takes longer to import than torch

        # Without rougeLsum and a stemmer, torchmetrics does not need nltk, which would download data.
        with own_precision(torch.float64):
            scores = rouge_score(
                continuation.generated,
                continuation.truth,
                normalizer=str.lower,
                tokenizer=_words if _words(continuation.truth.lower()) else words,
                rouge_keys="rougeL",
            )
        return float(scores[f"rougeL_{self.part}"])


def _words(text: str) -> list[str]:
    # torchmetrics' own rule keeps only a-z and 0-9: text in other scripts would vanish, and words would be split at
    # accented letters. Combining marks belong to the letter before them.
    spaced = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text)
    return [word for word in words(spaced) if any(c.isalnum() for c in word)]
