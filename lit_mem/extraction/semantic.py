"""Semantic similarity: whether continuation and true suffix have the same meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_mem.extraction.base import Continuation, ExtractionMeasure

if TYPE_CHECKING:
    from torch import Tensor

    from lit_mem.extraction.encoder import EncodedText


class SemanticSimilarity(ExtractionMeasure):
    """Cosine similarity of the mean token vectors of both texts in an encoder's last hidden states; at least 0.

    The mean is over all tokens except padding, special ones included, as sentence encoders are trained. It catches
    paraphrased leaks, and is high for any two texts of one domain, even if nothing was memorized: compare with
    `_heldout` and `_base`, never read it alone. Sentence encoders (`sentence-transformers/all-MiniLM-L6-v2`)
    distinguish meanings far better than a plain BERT. Texts longer than the model's context are truncated.
    The languages supported depend on the model.

    Args:
        model: hub id or local folder of a transformers encoder; weights saved as .safetensors.
        batch_size: number of texts per forward pass; lower it if memory runs out.
        device: device of the model; None: the current CUDA device if available, else the CPU.

    Raises:
        ConfigError: `batch_size` is out of range.

    Source: Reimers and Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks".
    """

    def __init__(self, model: str, batch_size: int = 32, device: str | None = None) -> None:
        from lit_mem.extraction.encoder import Encoder  # loads torch

        self.encoder = Encoder("SemanticSimilarity", model, None, batch_size, device)

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]; see `over`."""
        return self.over([continuation])[0]

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """A share in [0, 1] for each continuation, in the given order.

        Raises:
            ModelError: the model cannot be loaded.
        """
        return self.encoder.compare(continuations, _similarity)


def _similarity(generated: EncodedText, truth: EncodedText) -> float:
    from torch.nn.functional import cosine_similarity

    cosine: Tensor = cosine_similarity(_mean(generated), _mean(truth), dim=0)
    return cosine.clamp(min=0, max=1).item()


def _mean(text: EncodedText) -> Tensor:
    return text.states.double().mean(dim=0)
