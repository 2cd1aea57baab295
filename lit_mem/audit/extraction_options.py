"""The options of prompted extraction that are most often changed."""

from __future__ import annotations

from dataclasses import dataclass

from lit_mem.extraction.base import ExtractionMeasure
from lit_mem.types import Sampling


@dataclass
class ExtractionOptions:
    """How members and held-out texts are prompted (see `lit_mem.audit.measures.Extraction`).

    Attributes:
        n_members: number of members prompted; None: all scored ones.
        n_heldout: number of held-out texts prompted; None: all scored ones.
        prefix: below 1, the share of a text used as the prompt; from 1 on, the number of tokens; or a list of one kind.
        measures: extraction measures by logged name; None: `ngram_rate`, `exact_rate`, `rouge_l` and
            `edit_similarity`.
        base: prompt the base model too.
        sampling: sample tokens instead of greedy decoding.
        every_n_validations: generate only in every n-th validation (and in the one before training).
        token_budget: maximum number of tokens in a decoding batch.
        seed: seed for choosing the texts.
    """

    n_members: int | None = 100
    n_heldout: int | None = 100
    prefix: float | list[float] = 0.5
    measures: dict[str, ExtractionMeasure] | None = None
    base: bool = True
    sampling: Sampling | None = None
    every_n_validations: int = 1
    token_budget: int = 4096
    seed: int = 0
