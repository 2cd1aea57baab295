"""A lower bound on epsilon from the run itself: how well can somebody guess which canaries were in?"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.attacks.base import Attack
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.measures.canary_scores import CanaryScores
from lit_mem.audit.subject import Subject
from lit_mem.errors import ConfigError, check_range
from lit_mem.functional.one_run_audit import Audit, one_run_audit
from lit_mem.types import Batch, TokenScores

HIGHEST: Final = "audit/epsilon_lower_bound_highest"


class PrivacyAudit(Measure):
    """The ε that training is shown to exceed: the one-run audit, on the canaries that are inserted once.

    Of some canaries it is guessed, by their scores, whether their coin put them in. The more guesses are right, the
    larger an ε differential privacy would have to have for this to happen: `audit/epsilon_lower_bound`, at the stated
    confidence, for the model of that validation. Beside it the share of right guesses, `audit/accuracy`. At the end
    a line gives both.

    A bound of 0 proves nothing; it is no proof of privacy. Each validation's bound holds by itself: the highest of many
    is too high more often than stated. What holds for all validations of a fit together, at the stated confidence, is
    `audit/epsilon_lower_bound_highest`: the highest bound so far, where the k-th validation's is taken at the level
    (1 - confidence) * 6 / (pi^2 k^2), which sum to 1 - confidence however many validations there will be. The check
    before training is none of them, and a resumed run counts on. Canaries that stand in the training set more than once
    are left out, as differential privacy protects a row and promises less to many.

    Args:
        confidence: of the bound, in (0, 1).
        delta: δ at which ε is bounded, far below 1 / canaries. None: that of training with differential privacy, and
            1e-5 without.
        guesses: of how many canaries it is guessed, half of them "in" and half "out"; with several numbers the best
            bound counts, each at a level divided by how many they are. None: a quarter of the canaries.
        attack: what canaries are scored by. None: as in `Canaries`.

    Source: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846).
    """

    of_canaries = True

    def __init__(
        self,
        confidence: float = 0.95,
        delta: float | None = None,
        guesses: list[int] | None = None,
        attack: Attack | None = None,
    ) -> None:
        check_range("PrivacyAudit.confidence", confidence, above=0, below=1)
        check_range("PrivacyAudit.delta", delta, at_least=0, below=1, or_null=True)
        if guesses is not None and (not guesses or min(guesses) < 1):
            raise ConfigError(f"PrivacyAudit.guesses is {guesses}; expected at least one number, each 1 or more")
        self.confidence, self.delta, self.guesses = confidence, delta, guesses
        self._scores = CanaryScores(attack, "PrivacyAudit")
        self.needs = self._scores.needs
        self._validations, self._highest = 0, 0.0

    @property
    def state_key(self) -> str:
        """Bounds at another confidence or delta, or by other guesses, are none to go on from."""
        attack = type(self._scores.attack).__name__
        options = {"confidence": self.confidence, "delta": self.delta, "guesses": self.guesses, "attack": attack}
        return f"{type(self).__qualname__}{options!r}"

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: how many validations there were, and the highest bound of them."""
        return {"validations": self._validations, "highest": self._highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the last validation."""
        self._validations, self._highest = int(state_dict["validations"]), float(state_dict["highest"])

    def recall(self, validations: Sequence[Mapping[str, float]]) -> None:
        """Go on from the metrics of the validations of the fit so far, in order, where no checkpoint has the state."""
        known = [metrics[HIGHEST] for metrics in validations if HIGHEST in metrics]
        self._validations, self._highest = len(known), max(known, default=0.0)

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Start a new run with no validations; a resumed one gets its own next."""
        if fresh:
            self._validations, self._highest = 0, 0.0

    def names(self) -> list[str]:
        """The bounds, and the share of right guesses."""
        return ["audit/epsilon_lower_bound", HIGHEST, "audit/accuracy"]

    def begin(self, subject: Subject) -> None:
        """Drop the last pass."""
        self._scores.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch's canaries."""
        self._scores.update(scores, batch)

    def compute(self, run: Pass) -> Result:
        """The bound.

        Raises:
            ConfigError: there are no canaries that are inserted once, or fewer than are to be guessed.
        """
        table = self._scores.compute()
        if not run.complete:
            return Result()
        table = table.where(table["repetitions"] == 1)
        m = len(table)
        if not m:
            raise ConfigError(
                "PrivacyAudit guesses which canaries were inserted once, and there are none such; set data.canaries, "
                "with a 1 among its repetitions, or leave the measure out"
            )
        guesses = [max(1, m // 4)] if self.guesses is None else self.guesses
        if max(guesses) > m:
            raise ConfigError(
                f"PrivacyAudit.guesses is {guesses}, and {m} canaries are inserted once or not at all; expected {m} or "
                "fewer"
            )
        claim = run.subject.privacy_claim()
        delta = self.delta if self.delta is not None else 1e-5 if claim is None else claim[1]
        audit = one_run_audit(table["score"], table.member, guesses, delta, self.confidence)
        metrics = {"audit/epsilon_lower_bound": audit.epsilon, "audit/accuracy": audit.n_correct / audit.n_guesses}
        if run.stage == "fit":
            if not run.checking:  # nothing is known before training; after a resume, the last validation is repeated
                self._validations += 1
                level = level_of_look(1 - self.confidence, self._validations)
                strict = one_run_audit(table["score"], table.member, guesses, delta, 1 - level)
                self._highest = max(self._highest, strict.epsilon)
            if self._validations:
                metrics[HIGHEST] = self._highest
        verdict = [(logging.INFO, self._line(audit, m, delta, run.stage == "fit"))]
        # A larger delta makes a smaller epsilon true: what is claimed at a smaller one than is audited holds there too.
        if claim is not None and claim[1] <= delta and claim[0] < audit.epsilon:
            broken = (
                f"The audit contradicts privacy/epsilon: {claim[0]:.3g} is claimed, and at "
                f"{100 * self.confidence:g} % confidence it is at least {audit.epsilon:.3g}. Once in "
                f"{1 / (1 - self.confidence):.0f} times chance does that; if it stays, training is not private."
            )
            verdict.append((logging.WARNING, broken))
        return Result(metrics, verdict=tuple(verdict))

    def _line(self, audit: Audit, n_canaries: int, delta: float, in_fit: bool) -> str:
        proven = f"epsilon is at least {audit.epsilon:.3g}" if audit.epsilon else "nothing is proven of epsilon"
        return (
            f"Audit: at {100 * self.confidence:g} % confidence {proven} (delta {delta:g}): {audit.n_correct} of "
            f"{audit.n_guesses} guesses about {n_canaries} canaries were right. This validation's bound holds by "
            f"itself.{self._of_all() if in_fit and self._validations else ''}"
        )

    def _of_all(self) -> str:
        n, found = self._validations, self._highest
        proven = f"epsilon is at least {found:.3g}" if found else "nothing is proven"
        return f" The highest of {n} validations, at the same confidence for all of them together: {proven}."


def level_of_look(alpha: float, number: int) -> float:
    """The level of one look, so that all looks together, however many, are wrong with a chance of at most alpha.

    Args:
        alpha: of all together, in (0, 1).
        number: of the look, from 1.

    Returns:
        alpha * 6 / (pi^2 number^2); these sum to alpha (Basel), and by Boole's inequality that bounds the chance of any
        error, however the looks depend on one another.

    >>> round(sum(level_of_look(0.05, k) for k in range(1, 100_000)), 4)
    0.05
    """
    return alpha * 6 / (math.pi * number) ** 2
