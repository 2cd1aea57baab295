"""Con-ReCall: the contrast between a prefix of held-out texts and a prefix of members."""

from __future__ import annotations

import logging

from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import divisible, longest_input, mean_logprob
from lit_mem.attacks.prefixing import Shot, conditional_mean_logprob, fitting, longest_text, random_shots
from lit_mem.errors import check_range
from lit_mem.types import Prober, TokenScores

log = logging.getLogger(__name__)


class ConReCaLL(ProbingAttack):
    """(LL(x | P_nonmember) − weight · LL(x | P_member)) / LL(x), with LL the mean log-probability per token of x.

    All three are negative: a prefix of held-out texts lowers the likelihood of members, a prefix of members does not.
    The attacker must know some members. It costs two more forward passes, over longer texts. The examples of either
    prefix score NaN. Texts are joined and tokens counted as in `ReCaLL`; both prefixes keep the same number of shots.

    Args:
        shots: number of texts in each prefix.
        seed: seed of their choice.
        weight: weight of the members' prefix, γ in the paper.

    Source: Wang et al. 2024, "Con-ReCall: Detecting Pre-training Data in LLMs via Contrastive Decoding"
    (arXiv 2409.03363).
    """

    def __init__(self, shots: int = 4, seed: int = 0, weight: float = 1.0) -> None:
        check_range("ConReCaLL.shots", shots, at_least=1)
        check_range("ConReCaLL.seed", seed, at_least=0)
        check_range("ConReCaLL.weight", weight, at_least=0)
        self.shots, self.seed, self.weight = shots, seed, weight
        self._shots: dict[bool, list[Shot]] = {}
        self._limit: int | None = None

    def prepare(self, prober: Prober) -> None:
        """Choose both prefixes.

        Raises:
            ConfigError: there are too few members or held-out texts, or no shot fits the model.
        """
        super().prepare(prober)
        self._limit = longest_input(prober)
        longest = longest_text([prober.texts(True), prober.texts(False)], prober.tokenizer)
        fit = {}
        for member in (False, True):
            shots = random_shots(prober, member, self.shots, self.seed, "ConReCaLL")
            fit[member] = fitting(shots, longest, self._limit, "ConReCaLL")
        fewest = min(len(shots) for shots in fit.values())
        if fewest < self.shots and fewest != len(self._shots.get(True, [])):
            log.info("ConReCaLL: %d of %d shots fit the model's %s positions.", fewest, self.shots, self._limit)
        self._shots = {member: shots[:fewest] for member, shots in fit.items()}

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; NaN for an example of either prefix.

        Raises:
            MetricError: the scores do not carry their batch.
            ConfigError: an example does not fit the model together with a prefix.
        """
        after = {
            member: divisible(conditional_mean_logprob(self.prober, scores, shots, self._limit, "ConReCaLL"))
            for member, shots in self._shots.items()
        }
        ratio = (after[False] - self.weight * after[True]) / divisible(mean_logprob(scores))
        return ratio.masked_fill(scores.n_tokens == 0, 0.0)
