"""The neighbourhood attack: a member is more likely than texts that differ from it in a few words."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import batch_of, examples_of, longest_input, mean_logprob, probed_mean_logprob
from lit_mem.attacks.rewriting import rewritten
from lit_mem.attacks.word_replacement import WordReplacer
from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import IGNORED, Prober, TokenScores


class Neighbourhood(ProbingAttack):
    """LL(x) − mean LL(x̃) in nats over neighbours x̃ of x, with LL the mean log-probability per token.

    A neighbour is x with a share of its words replaced by proposals of a masked language model. The neighbours of an
    example are generated once and cached; scoring them costs as many forward passes as there are neighbours, at every
    validation. They depend only on `seed`, the example's id and its text. A prompt is unchanged.

    Args:
        masked_lm: hub id or folder of a masked language model (BERT, RoBERTa), which takes additional memory; its
            weights must be safetensors.
        neighbours: number of neighbours per example.
        share: share of the words replaced, rounded, at least one word.
        seed: seed for choosing words and replacements.

    Source: Mattern et al. 2023, "Membership Inference Attacks against Language Models via Neighbourhood Comparison"
    (arXiv 2305.18462). There a word is not masked but dropout is applied to its embedding, and its replacement is
    searched for; here the word is masked, and its replacement is sampled.
    """

    def __init__(self, masked_lm: str, neighbours: int = 25, share: float = 0.15, seed: int = 0) -> None:
        if not masked_lm:
            raise ConfigError("Neighbourhood.masked_lm is empty; expected the hub id or folder of a masked model")
        check_range("Neighbourhood.neighbours", neighbours, at_least=1)
        check_range("Neighbourhood.share", share, above=0, at_most=1)
        check_range("Neighbourhood.seed", seed, at_least=0)
        self.masked_lm, self.neighbours, self.share, self.seed = masked_lm, neighbours, share, seed
        self._replacer: WordReplacer | None = None
        self._made: dict[tuple[int, bytes], list[Encoded]] = {}

    def prepare(self, prober: Prober) -> None:
        """Load the masked language model, once.

        Raises:
            ModelError: it cannot be loaded, or its vocabulary has no words.
        """
        super().prepare(prober)
        if self._replacer is None:
            self._replacer = WordReplacer(self.masked_lm)

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; NaN for a text without words, which has no neighbours.

        Raises:
            MetricError: the scores do not carry their batch, or the batch carries no texts.
        """
        batch_of(scores, "the neighbourhood attack")
        records = scores.records("the neighbourhood attack")
        rows: list[Encoded] = []
        owners: list[int] = []
        for row, example in examples_of(scores):
            neighbours = self._neighbours(example, records[row].text, scores.mask.device)
            rows += neighbours
            owners += [row] * len(neighbours)
        logprob = probed_mean_logprob(self.prober, rows, scores)
        owner = torch.tensor(owners, dtype=torch.int64)
        total = torch.zeros(len(records), dtype=torch.float64).index_add_(0, owner, logprob)
        count = torch.bincount(owner, minlength=len(records))
        difference = mean_logprob(scores) - total / count  # 0 / 0 is NaN
        return difference.masked_fill(scores.n_tokens == 0, 0.0)

    def _neighbours(self, example: Encoded, text: str, device: torch.device) -> list[Encoded]:
        content = example.input_ids.numpy().tobytes() + text.encode()
        key = (example.example_id, hashlib.blake2b(content, digest_size=16).digest())
        if key not in self._made:
            assert self._replacer is not None
            self._replacer.model.to(device)
            digest = hashlib.blake2b(f"{self.seed} {example.example_id}".encode(), digest_size=4).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
            versions = self._replacer.versions(text, self.neighbours, self.share, generator)
            made = []
            if versions:
                limit = longest_input(self.prober)
                made = rewritten(example, text, versions, self.prober.tokenizer, limit)
            self._made[key] = [row for row in made if (row.labels != IGNORED).any()]
        return self._made[key]
