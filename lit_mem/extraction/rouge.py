"""ROUGE-L: words of the true suffix that come back in their order, with gaps allowed."""

from __future__ import annotations

import unicodedata
from typing import Literal, get_args

import torch

from lit_mem.errors import ConfigError
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.precision import own_precision
from lit_mem.functional.words import words

Part = Literal["fmeasure", "recall", "precision"]


class RougeL(ExtractionMeasure):
    """Longest common subsequence of words, relative to the words in the two texts; torchmetrics' `rouge_score`.

    Case and punctuation do not count, nothing is stemmed, and a word is a run of letters and digits of any script (in
    ASCII text these are the words of the ROUGE script). A true suffix without a letter or digit, say of emoji alone,
    is compared by what stands between white space. Of scripts without spaces between words, as Chinese or Thai, each
    character counts as a word.

    Args:
        part: "recall" divides by the words of the true suffix, "precision" by those generated, "fmeasure" is the
            harmonic mean of both. Continuations are at most as long as the true suffix in tokens, so the three
            seldom differ much.

    Raises:
        ConfigError: `part` is none of these.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """

    def __init__(self, part: Part = "fmeasure") -> None:
        if part not in get_args(Part):
            raise ConfigError(f"RougeL.part is {part!r}; expected one of {', '.join(get_args(Part))}")
        self.part = part

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]."""
        from torchmetrics.functional.text.rouge import rouge_score  # takes longer to import than torch

        # Without rougeLsum and without a stemmer nothing asks for nltk, which would go to the network for its data.
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
    # torchmetrics' own rule keeps a-z and 0-9 only: of a text in another script nothing would be left, and a word
    # would be cut at its accented letters. Combining marks belong to the letter before them.
    spaced = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text)
    return [word for word in words(spaced) if any(c.isalnum() for c in word)]
