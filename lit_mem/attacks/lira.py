"""LiRA, offline: how far an example's likelihood exceeds that of models trained without it."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from torch import Tensor

from lit_mem.attacks.likelihood import mean_logprob
from lit_mem.attacks.population import PopulationAttack
from lit_mem.errors import ConfigError
from lit_mem.types import TokenScores

_ENOUGH: Final = 8
_LEAST_STD: Final = 1e-6


class OfflineLiRA(PopulationAttack):
    """z = (φ_θ(x) − mean φ_out(x)) / std φ_out(x), φ the mean log-probability per token, over the references.

    The probability Φ(z) that a model without x gives it a lower value ranks examples the same as z.

    With few references an example's own deviation is mostly noise, and a common deviation works better. Dividing all
    examples by one number changes no ranking and no metric, so `fixed` does not divide: its score is the difference,
    in nats. It needs no pass over the set, and is the same on any number of processes.

    Args:
        references: as in `PopulationAttack`; at least 2.
        deviation: "example": divide by each example's own deviation over references (root mean square, at least 1e-6
            nats); "fixed": a common deviation, see above; "auto": "example" from 8 references on.

    Source: Carlini et al. 2022, "Membership Inference Attacks From First Principles" (the offline attack, and its
    variant with one variance for all). There φ is the logit of the label's probability in a classifier.
    """

    fewest: ClassVar[int] = 2

    def __init__(self, references: list[str], deviation: Literal["auto", "example", "fixed"] = "auto") -> None:
        super().__init__(references)
        if deviation not in ("auto", "example", "fixed"):
            raise ConfigError(f"OfflineLiRA.deviation is {deviation!r}; expected auto, example or fixed")
        self.deviation = deviation

    def __call__(self, scores: TokenScores) -> Tensor:
        """(B,) float64, higher = more member-like; in deviations, or with a fixed deviation in nats.

        Raises:
            MetricError: the scores do not carry their batch.
        """
        out = self.reference_mean_logprob(scores)
        difference = mean_logprob(scores) - out.mean(dim=0)
        if self.deviation == "fixed" or (self.deviation == "auto" and len(out) < _ENOUGH):
            return difference
        return difference / out.std(dim=0, correction=0).clamp(min=_LEAST_STD)
