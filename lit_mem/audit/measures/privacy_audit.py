"""A lower bound on epsilon from the run itself, by guessing which canaries were inserted."""

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
    """A lower bound on ε by the one-run audit, from the canaries that are inserted once.

    For some canaries it is guessed from their scores whether they were inserted. The more guesses are correct, the
    larger the ε that differential privacy must have: `audit/epsilon_lower_bound`, at the stated confidence, for the
    model of that validation; and the share of correct guesses, `audit/accuracy`. A line at the end reports both.

    A bound of 0 proves nothing; in particular it does not prove privacy. Each validation's bound holds by itself: the
    highest of many is too high more often than stated. The bound that holds for all validations of a fit together is
    `audit/epsilon_lower_bound_highest`: the highest bound so far, where the k-th validation's is taken at level
    (1 - confidence) * 6 / (pi^2 k^2). These levels sum to 1 - confidence for any number of validations. The check
    before training does not count, and a resumed run continues the count. Canaries that occur in the training set more
    than once are left out, as differential privacy protects single rows.

    Args:
        confidence: confidence of the bound, in (0, 1).
        delta: δ at which ε is bounded, far below 1 / canaries. None: that of training with differential privacy, and
            1e-5 without.
        guesses: number of guesses, half of them "in" and half "out"; with several numbers the best bound counts, each
            at a level divided by their number. None: a quarter of the canaries.
        attack: attack that scores canaries. None: as in `Canaries`.

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
        """State key by options: bounds with other options cannot be continued."""
        attack = type(self._scores.attack).__name__
        options = {"confidence": self.confidence, "delta": self.delta, "guesses": self.guesses, "attack": attack}
        return f"{type(self).__qualname__}{options!r}"

    def state_dict(self) -> dict[str, Any]:
        """The number of validations and their highest bound, for a resumed run."""
        return {"validations": self._validations, "highest": self._highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        self._validations, self._highest = int(state_dict["validations"]), float(state_dict["highest"])

    def recall(self, validations: Sequence[Mapping[str, float]]) -> None:
        """Rebuild the state from the metrics of the fit's validations, in order, if no checkpoint has it."""
        known = [metrics[HIGHEST] for metrics in validations if HIGHEST in metrics]
        self._validations, self._highest = len(known), max(known, default=0.0)

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for a new run; in a resumed run, `load_state_dict` follows."""
        if fresh:
            self._validations, self._highest = 0, 0.0

    def names(self) -> list[str]:
        """The bounds, and the share of correct guesses."""
        return ["audit/epsilon_lower_bound", HIGHEST, "audit/accuracy"]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._scores.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch's canaries."""
        self._scores.update(scores, batch)

    def compute(self, run: Pass) -> Result:
        """Compute the bound.

        Raises:
            ConfigError: no canaries are inserted once, or there are fewer than `guesses`.
        """
        table = self._scores.compute()
        if not run.complete:
            return Result()
        table = table.where(table["repetitions"] == 1)
        m = len(table)
        if not m:
            raise ConfigError(
                "PrivacyAudit needs canaries that are inserted once, and found none; set data.canaries with a 1 among "
                "its repetitions, or remove the measure"
            )
        guesses = [max(1, m // 4)] if self.guesses is None else self.guesses
        if max(guesses) > m:
            raise ConfigError(
                f"PrivacyAudit.guesses is {guesses}, but only {m} canaries are inserted at most once; expected {m} or "
                "fewer"
            )
        claim = run.subject.privacy_claim()
        delta = self.delta if self.delta is not None else 1e-5 if claim is None else claim[1]
        audit = one_run_audit(table["score"], table.member, guesses, delta, self.confidence)
        metrics = {"audit/epsilon_lower_bound": audit.epsilon, "audit/accuracy": audit.n_correct / audit.n_guesses}
        if run.stage == "fit":
            if not run.checking:  # the checks before training and after resuming do not count
                self._validations += 1
                level = level_of_look(1 - self.confidence, self._validations)
                strict = one_run_audit(table["score"], table.member, guesses, delta, 1 - level)
                self._highest = max(self._highest, strict.epsilon)
            if self._validations:
                metrics[HIGHEST] = self._highest
        verdict = [(logging.INFO, self._line(audit, m, delta, run.stage == "fit"))]
        # ε decreases as δ grows, so a claim at a smaller δ than the audited one also holds at the audited δ.
        if claim is not None and claim[1] <= delta and claim[0] < audit.epsilon:
            broken = (
                f"The audit contradicts privacy/epsilon: the claim is {claim[0]:.3g}, but epsilon is at least "
                f"{audit.epsilon:.3g} at {100 * self.confidence:g} % confidence. By chance this happens once in "
                f"{1 / (1 - self.confidence):.0f} validations; if it persists, training is not private."
            )
            verdict.append((logging.WARNING, broken))
        return Result(metrics, verdict=tuple(verdict))

    def _line(self, audit: Audit, n_canaries: int, delta: float, in_fit: bool) -> str:
        return (
            f"Audit: at {100 * self.confidence:g} % confidence epsilon is at least {audit.epsilon:.3g} "
            f"(delta {delta:g}): {audit.n_correct} of {audit.n_guesses} guesses about {n_canaries} canaries were "
            "correct. This bound holds for this validation alone."
            f"{self._of_all() if in_fit and self._validations else ''}"
        )

    def _of_all(self) -> str:
        return (
            f" Highest bound of {self._validations} validations, at the same confidence for all of them together: "
            f"{self._highest:.3g}."
        )


def level_of_look(alpha: float, number: int) -> float:
    """Level of one look, such that the probability of any error over all looks, however many, is at most alpha.

    Args:
        alpha: total level, in (0, 1).
        number: number of the look, from 1.

    Returns:
        alpha * 6 / (pi^2 number^2); these sum to alpha (Basel), and by Boole's inequality bound the probability of any
        error, for any dependence between the looks.

    >>> round(sum(level_of_look(0.05, k) for k in range(1, 100_000)), 4)
    0.05
    """
    return alpha * 6 / (math.pi * number) ** 2
