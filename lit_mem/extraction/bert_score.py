"""BERTScore: similarity of tokens by an encoder's contextual embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_mem.extraction.base import Continuation, ExtractionMeasure

if TYPE_CHECKING:
    from lit_mem.extraction.encoder import EncodedText


class BertScore(ExtractionMeasure):
    """F1 of matching each token with the most similar one of the other text, in an encoder's hidden states.

    It is high for any two texts of one domain, even if nothing was memorized (RoBERTa-large gives unrelated English
    sentences about 0.8): compare with `_heldout` and `_base`, never read it alone. No baseline rescaling, no IDF
    weighting. Texts longer than the model's context are truncated. The languages supported depend on the model.

    Equal to torchmetrics' `bert_score` for a single pair and a model that adds two special tokens per text. For
    several pairs at a time torchmetrics compares the wrong ones with each other (its texts, sorted by length, are not
    restored to their order), and its data loader draws a random number; hence this implementation.

    Args:
        model: hub id or local folder of a transformers encoder; weights saved as .safetensors.
        layer: hidden states to compare: 0 the embeddings, 1 the first layer's output, …; None: the last. The
            authors recommend 17 for RoBERTa-large, 9 for BERT-base.
        batch_size: number of texts per forward pass; lower it if memory runs out.
        device: device of the model; None: the current CUDA device if available, else the CPU.

    Raises:
        ConfigError: `layer` or `batch_size` is out of range.

    Source: Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT".
    """

    def __init__(self, model: str, layer: int | None = None, batch_size: int = 32, device: str | None = None) -> None:
        from lit_mem.extraction.encoder import Encoder  # loads torch

        self.encoder = Encoder("BertScore", model, layer, batch_size, device)

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]; see `over`."""
        return self.over([continuation])[0]

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """A share in [0, 1] for each continuation, in the given order.

        Raises:
            ModelError: the model cannot be loaded or has no such layer.
        """
        return self.encoder.compare(continuations, _similarity)


def _similarity(generated: EncodedText, truth: EncodedText) -> float:
    from lit_mem.functional.bert_score import greedy_match_f1

    return greedy_match_f1(generated.states[generated.own], truth.states[truth.own])
