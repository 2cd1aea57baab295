"""Semantic similarity: do continuation and true suffix mean the same, in whatever words?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cosine_similarity

from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.encoder import EncodedText, Encoder


class SemanticSimilarity(ExtractionMeasure):
    """Cosine between the mean token vectors of both texts in an encoder's last hidden states; below 0 counts as 0.

    All tokens are averaged but padding, special ones included, as sentence encoders are trained. It catches what was
    leaked in other words, and is high for any two texts of one domain, also where nothing was memorized: compare with
    `_heldout` and `_base`, never read it alone. Models made for sentences (`sentence-transformers/all-MiniLM-L6-v2`)
    tell meanings apart far better than a plain BERT. Texts longer than the model takes are compared up to there.
    What languages it can tell apart is the named model's matter.

    Args:
        model: hub id or local folder of a transformers encoder; weights saved as .safetensors.
        batch_size: texts that go through the model together; lower it if memory runs out.
        device: where the model runs; None: the current CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: `batch_size` is out of range.

    Source: Reimers and Gurevych 2019, "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks".
    """

    def __init__(self, model: str, batch_size: int = 32, device: str | None = None) -> None:
        self.encoder = Encoder("SemanticSimilarity", model, None, batch_size, device)

    def __call__(self, continuation: Continuation) -> float:
        """A share in [0, 1]; see `over`."""
        return self.over([continuation])[0]

    def over(self, continuations: Sequence[Continuation]) -> list[float]:
        """A share in [0, 1] of each continuation, in the order given.

        Raises:
            ModelError: the model cannot be loaded.
        """
        return self.encoder.compare(continuations, _similarity)


def _similarity(generated: EncodedText, truth: EncodedText) -> float:
    cosine: Tensor = cosine_similarity(_mean(generated), _mean(truth), dim=0)
    return cosine.clamp(min=0, max=1).item()


def _mean(text: EncodedText) -> Tensor:
    return text.states.double().mean(dim=0)
