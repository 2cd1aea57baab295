"""The privacy budget of a run: epsilon spent, noise needed, and steps left."""

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
    """The budget of one start of a private run, including what all earlier starts have spent.

    Args:
        options: options of DP-SGD.
        texts: N, the number of training texts, which is treated as public.
        ledger: the ledger to write; None: another process writes it, or there is none.

    Attributes:
        delta: δ.
        sample_rate: q, the probability that a text is in a step.
        history: the charged steps.
        noise_multiplier: σ of future steps; 0 before `plan`.
        unwritten: earlier steps that are not in the ledger; `open_ledger` writes them first.
        corpus: `corpus_digest` of the texts, for the ledger.
        unaccounted: whether training started from weights trained without a ledger.
        remaining: remaining steps; None: no limit.

    Raises:
        ConfigError: a step would draw all texts, delta is too large, or the ledger has another number of texts.
    """

    def __init__(self, options: DPSGD, texts: int, ledger: Ledger | None = None) -> None:
        if options.batch_size >= texts:
            raise ConfigError(
                f"model.privacy.batch_size is {options.batch_size}, but there are {texts} training texts; expected "
                "fewer than that: the privacy guarantee relies on subsampling"
            )
        self.delta = 1 / (10 * texts) if options.delta is None else options.delta
        if self.delta > 1 / texts:
            raise ConfigError(
                f"model.privacy.delta is {self.delta:g}; expected below 1/N = {1 / texts:.3g}: publishing one of the N "
                "texts in full already satisfies a delta of 1/N"
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
        """Number of charged steps."""
        return number_of_steps(self.history)

    def epsilon(self) -> float:
        """Epsilon spent by all steps so far."""
        return epsilon(self.history, self.delta, self.options.accountant)

    def plan(self, steps: float, noise_multiplier: float | None = None) -> None:
        """Choose the noise for the planned steps, and determine how many the budget allows.

        Args:
            steps: number of planned steps; may be infinite.
            noise_multiplier: noise multiplier of the resumed run; None: choose one.

        Raises:
            ConfigError: the number of steps is unknown but needed, or the budget is exhausted.
        """
        options, kind = self.options, self.options.accountant
        noise = options.noise_multiplier if options.noise_multiplier is not None else noise_multiplier
        target = options.target_epsilon
        if target is not None and self.history and self.epsilon() >= target:
            raise ConfigError(
                f"model.privacy.target_epsilon is {target:g}, but {self.epsilon():.4g} is already spent in "
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
                    f"model.privacy.target_epsilon is {target:g}, but one step with noise_multiplier {noise:g} costs "
                    "more"
                )

    def open_ledger(self) -> None:
        """Write the parameters of the planned steps to the ledger, and earlier steps that are not in it."""
        if self.ledger is None:
            return
        self.ledger.copy(self.unwritten)
        self.unwritten = ()
        self.ledger.start(self.texts, self.noise_multiplier, self.sample_rate, self.corpus, self.unaccounted)

    def charge(self) -> None:
        """Charge one step, before it is taken; it is in the ledger on disk when this returns.

        Raises:
            RuntimeError: the budget is exhausted.
            CheckpointError: another run is writing to the ledger.
            OSError: the ledger cannot be written.
        """
        if self.remaining == 0:
            raise RuntimeError("the privacy budget is exhausted")
        if self.ledger is not None:
            self.ledger.charge()
        self.history = merged([*self.history, Steps(self.noise_multiplier, self.sample_rate, 1)])
        self.remaining = None if self.remaining is None else self.remaining - 1

    def state(self) -> Spent:
        """The state for the checkpoint."""
        return {
            "history": [list(steps) for steps in self.history],
            "noise_multiplier": self.noise_multiplier,
            "texts": self.texts,
            "ledger": "" if self.ledger is None else str(self.ledger.path.absolute()),
            "ledger_id": "" if self.ledger is None else self.ledger.id,
            "ledger_chain": "" if self.ledger is None else self.ledger.chain,
            "unaccounted": self.unaccounted,
        }
