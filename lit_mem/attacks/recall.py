"""ReCaLL: a prefix of unseen texts lowers the likelihood of members more than that of non-members."""

from __future__ import annotations

import logging

from torch import Tensor

from lit_mem.attacks.base import ProbingAttack
from lit_mem.attacks.likelihood import divisible, longest_input, mean_logprob
from lit_mem.attacks.prefixing import (
    Shot,
    conditional_mean_logprob,
    fitting,
    given_shots,
    longest_text,
    random_shots,
)
from lit_mem.errors import ConfigError, check_range
from lit_mem.types import Prober, TokenScores

log = logging.getLogger(__name__)


class ReCaLL(ProbingAttack):
    """Relative conditional log-likelihood LL(x | P) / LL(x), with LL the mean log-probability per token of x.

    Both are negative, so the ratio is above 1 if the prefix P makes the text less likely. It costs one more
    forward pass, over texts with the prefix. An example that is in the prefix scores NaN.

    Token ids are concatenated: each text of the prefix without its BOS and end-of-text tokens, and the BOS of
    the example, if any, in front. The tokens of x that count are the same as without a prefix.
    If the prefix and the longest text do not fit the model, the longest shots are dropped one by one.

    Args:
        shots: number of held-out texts in the prefix.
        seed: seed of their choice.
        prefix: custom texts, known to be non-members, instead of `shots` held-out ones.

    Source: Xie et al. 2024, "ReCaLL: Membership Inference via Relative Conditional Log-Likelihoods"
    (arXiv 2406.15968).
    """

    def __init__(self, shots: int = 4, seed: int = 0, prefix: list[str] | None = None) -> None:
        check_range("ReCaLL.shots", shots, at_least=1)
        check_range("ReCaLL.seed", seed, at_least=0)
        if prefix is not None and (not prefix or not all(text.strip() for text in prefix)):
            raise ConfigError("ReCaLL.prefix is empty or contains an empty text; expected texts, or null")
        self.shots, self.seed, self.prefix = shots, seed, prefix
        self._shots: list[Shot] = []
        self._limit: int | None = None

    def prepare(self, prober: Prober) -> None:
        """Choose the prefix.

        Raises:
            ConfigError: there are too few held-out texts, or no shot fits the model.
        """
        super().prepare(prober)
        self._limit = longest_input(prober)
        if self.prefix is None:
            shots = random_shots(prober, False, self.shots, self.seed, "ReCaLL")
            longest = longest_text([prober.texts(True), prober.texts(False)], prober.tokenizer)
        else:
            # A custom prefix also serves data modules that give no texts.
            shots, longest = given_shots(self.prefix, prober.tokenizer), self._longest_known(prober)
        fit = fitting(shots, longest, self._limit, "ReCaLL")
        if len(fit) < len(shots) and len(fit) != len(self._shots):
            log.info("ReCaLL: %d of %d shots fit the model's %s positions.", len(fit), len(shots), self._limit)
        self._shots = fit

    @staticmethod
    def _longest_known(prober: Prober) -> int:
        try:
            return longest_text([prober.texts(True), prober.texts(False)], prober.tokenizer)
        except ConfigError:
            return 1

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, at least 0, higher = more member-like; NaN for an example of the prefix.

        Raises:
            MetricError: the scores do not carry their batch.
            ConfigError: an example does not fit the model together with the prefix.
        """
        after = conditional_mean_logprob(self.prober, scores, self._shots, self._limit, "ReCaLL")
        ratio = divisible(after) / divisible(mean_logprob(scores))
        return ratio.masked_fill(scores.n_tokens == 0, 0.0)
