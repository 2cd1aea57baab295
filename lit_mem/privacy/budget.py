"""The budget of a private run: what its steps have cost, how much noise they need, and how many are left."""

from __future__ import annotations

import math

from lit_mem.errors import ConfigError
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.accountant import Steps, epsilon, merged, number_of_steps
from lit_mem.privacy.calibration import noise_for, steps_within
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.ledger_lines import Start


class Budget:
    """What one start of a private run may spend, and has spent with all starts before it.

    Args:
        options: how.
        texts: N, how many training texts there are; this number is taken to be known to everyone.
        ledger: written to here; None: another process does that, or none.

    Attributes:
        delta: δ.
        sample_rate: q, the probability with which a text is in a step.
        history: the steps that have been charged.
        noise_multiplier: σ of the steps to come; 0 before `plan`.
        unwritten: steps that were taken before and are not in the ledger; `open_ledger` writes them first.
        corpus: `corpus_digest` of the texts, for the ledger.
        unaccounted: whether weights were trained before without a ledger.
        remaining: how many more steps may be taken; None: no limit.

    Raises:
        ConfigError: a step would draw all texts, delta is too large, or the ledger is of another number of texts.
    """

    def __init__(self, options: DPSGD, texts: int, ledger: Ledger | None = None) -> None:
        if options.batch_size >= texts:
            raise ConfigError(
                f"model.privacy.batch_size is {options.batch_size}, and there are {texts} training texts; expected "
                "fewer: that not all are in a step is part of what hides each"
            )
        self.delta = 1 / (10 * texts) if options.delta is None else options.delta
        if self.delta > 1 / texts:
            raise ConfigError(
                f"model.privacy.delta is {self.delta:g}; expected below 1/N = {1 / texts:.3g}: already who publishes "
                "one of the N texts whole keeps to a delta of 1/N"
            )
        if ledger is not None:
            ledger.check(texts)
        self.options, self.texts, self.ledger = options, texts, ledger
        self.sample_rate = options.batch_size / texts
        self.history: tuple[Steps, ...] = ledger.history if ledger is not None else ()
        self.unwritten: tuple[Start, ...] = ()
        self.corpus, self.unaccounted = "", False
        self.noise_multiplier = 0.0
        self.remaining: int | None = None

    @property
    def steps(self) -> int:
        """How many steps have been charged."""
        return number_of_steps(self.history)

    def epsilon(self) -> float:
        """What all steps so far have cost."""
        return epsilon(self.history, self.delta, self.options.accountant)

    def plan(self, steps: float, noise_multiplier: float | None = None) -> None:
        """Choose the noise for so many steps to come, and see how many the budget allows.

        Args:
            steps: how many are planned; may be infinite.
            noise_multiplier: of the run that goes on here; None: a new one.

        Raises:
            ConfigError: the number of steps is needed, or nothing is left of the budget.
        """
        options, kind = self.options, self.options.accountant
        noise = options.noise_multiplier if options.noise_multiplier is not None else noise_multiplier
        target = options.target_epsilon
        if target is not None and self.history and self.epsilon() >= target:
            raise ConfigError(
                f"model.privacy.target_epsilon is {target:g}, and {self.epsilon():.4g} is spent already in "
                f"{self.steps} steps{f' ({self.ledger.path})' if self.ledger is not None else ''}"
            )
        if target is not None and math.isinf(steps):
            raise ConfigError(
                "model.privacy.target_epsilon needs the number of steps; set trainer.max_epochs or trainer.max_steps"
            )
        if noise is None:
            assert target is not None
            noise = noise_for(target, self.delta, self.sample_rate, max(1, int(steps)), self.history, kind)
        self.noise_multiplier = noise
        if target is not None:
            self.remaining = steps_within(
                target, self.delta, noise, self.sample_rate, max(1, int(steps)), self.history, kind
            )
            if not self.remaining:
                raise ConfigError(
                    f"model.privacy.target_epsilon is {target:g}, and a step with noise_multiplier {noise:g} costs more"
                )

    def open_ledger(self) -> None:
        """Write down what the steps to come are, once they are planned, and those taken before that no ledger has."""
        if self.ledger is None:
            return
        self.ledger.copy(self.unwritten)
        self.unwritten = ()
        self.ledger.start(self.texts, self.noise_multiplier, self.sample_rate, self.corpus, self.unaccounted)

    def charge(self) -> None:
        """Charge one step, before it is taken; the ledger has it on the disk when this returns.

        Raises:
            RuntimeError: the budget does not allow another.
            CheckpointError: another run is writing to the ledger.
            OSError: the ledger cannot be written.
        """
        if self.remaining == 0:
            raise RuntimeError("the privacy budget is spent")
        if self.ledger is not None:
            self.ledger.charge()
        self.history = merged([*self.history, Steps(self.noise_multiplier, self.sample_rate, 1)])
        self.remaining = None if self.remaining is None else self.remaining - 1

    def state(self) -> Spent:
        """For the checkpoint."""
        return {
            "history": [list(steps) for steps in self.history],
            "noise_multiplier": self.noise_multiplier,
            "texts": self.texts,
            "ledger": "" if self.ledger is None else str(self.ledger.path.absolute()),
            "ledger_id": "" if self.ledger is None else self.ledger.id,
            "ledger_chain": "" if self.ledger is None else self.ledger.chain,
            "unaccounted": self.unaccounted,
        }
