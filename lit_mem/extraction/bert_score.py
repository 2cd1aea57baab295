"""BERTScore: tokens compared by what an encoder makes of them in their context."""

from __future__ import annotations

from collections.abc import Sequence

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.encoder import EncodedText, Encoder
from lit_mem.functional.bert_score import greedy_match_f1


class BertScore(ExtractionMeasure):
    """F1 of matching each token with the most similar one of the other text, in an encoder's hidden states.

    High for any two texts of one domain, also where nothing was memorized (RoBERTa-large gives unrelated English
    sentences some 0.8): compare with `_heldout` and `_base`, never read it alone. No rescaling with a baseline, no
    weighting by rarity. Texts longer than the model takes are compared up to there. What languages it can tell apart
    is the named model's matter.

    Equal to torchmetrics' `bert_score` of one pair and a model that frames a text with two special tokens. Of several
    pairs at a time torchmetrics compares the wrong ones with each other (its texts, sorted by length, are not put
    back in order), and its data loader draws a random number; hence our own.

    Args:
        model: hub id or local folder of a transformers encoder; weights saved as .safetensors.
        layer: which hidden states are compared: 0 the embeddings, 1 the first layer's output, …; None: the last. The
            authors recommend 17 for RoBERTa-large, 9 for BERT-base.
        batch_size: texts that go through the model together; lower it if memory runs out.
        device: where the model runs; None: the current CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: `layer` or `batch_size` is out of range.

    Source: Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT".
    """

    def __init__(self, model: str, layer: int | None = None, batch_size: int = 32, device: str | None = None) -> None:
        self.encoder = Encoder("BertScore", model, layer, batch_size, device)

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]; see `over`."""
        return self.over([continuation])[0]

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """A share in [0, 1] of each continuation, in the order given.

        Raises:
            ModelError: the model cannot be loaded or has no such layer.
        """
        return self.encoder.compare(continuations, _similarity)


def _similarity(generated: EncodedText, truth: EncodedText) -> float:
    return greedy_match_f1(generated.states[generated.own], truth.states[truth.own])
