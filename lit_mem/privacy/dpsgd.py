"""DP-SGD: the options, and the training step that keeps to them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.models.checkpoint import Spent
from lit_mem.privacy.accountant import (
    LEAST_NOISE,
    MOST_NOISE,
    Kind,
    Steps,
    epsilon,
    merged,
    noise_for,
    number_of_steps,
    possible_noise,
    steps_within,
)
from lit_mem.privacy.clipping import add_clipped_, add_noise_
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.ledger_lines import Start
from lit_mem.privacy.per_text import Losses, PerTextGradients

log = logging.getLogger(__name__)


@dataclass
class DPSGD:
    """Differentially private fine-tuning of an adapter (Abadi et al. 2016, arXiv 1607.00133), with Opacus.

    In each step every text is drawn by itself with probability batch_size / N, the gradient of each is clipped, and
    normal noise is added to their sum. What the steps have cost is logged as `privacy/epsilon`. The unit of privacy is
    one row of the training set; where the data names groups, the epsilon of a person with as many rows as the largest
    group is logged too, at the start and at the end (`lit_mem.privacy.group`).
    Nothing else may be random in a step, so dropout is refused (`lit_mem.privacy.randomness`).

    One of target_epsilon and noise_multiplier must be given; with both, training ends at the target.

    Attributes:
        target_epsilon: the noise is chosen so that all steps cost no more; training ends before more is spent.
        delta: probability with which the bound may fail; None: 1 / (10 N) for N training texts.
        noise_multiplier: deviation of the noise as a multiple of the clipping norm.
        clipping_norm: the norm to which each text's gradient is scaled down where it is longer.
        batch_size: training texts a step on average, over all devices. How many go through the model together is
            data.batch_size: fewer are filled up with padding, so that every text is computed in the same shape.
        accountant: "prv" is the tighter one; "rdp" is quicker.
        ledger: the file in which each step is written down before it is taken; None: `privacy.jsonl` in the run's
            folder (or, in a resumed run, the ledger that its checkpoint names). A file given here that is there already
            goes on: its steps count.
        allow_unaccounted_start: start from weights that were trained before and have no ledger (`model.adapter_path`).
            Epsilon then covers only the steps from here on, which log and report say. What the weights show of the
            texts of that earlier training, which may be the same, it does not bound.
        test_seed: makes noise and batches follow from a seed, so that a run can be had again. This is for tests: anyone
            can then take the noise away, and nothing is private.
    """

    target_epsilon: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    clipping_norm: float = 1.0
    batch_size: int = 64
    accountant: Kind = "prv"
    ledger: str | None = None
    allow_unaccounted_start: bool = False
    test_seed: int | None = None

    def __post_init__(self) -> None:
        if self.target_epsilon is None and self.noise_multiplier is None:
            raise ConfigError("model.privacy has neither target_epsilon nor noise_multiplier; expected one of them")
        bounds: list[tuple[str, float | None, str, Callable[[float], bool]]] = [
            ("target_epsilon", self.target_epsilon, "a number above 0", lambda x: 0 < x < math.inf),
            ("delta", self.delta, "a number between 0 and 1", lambda x: 0 < x < 1),
            ("noise_multiplier", self.noise_multiplier, f"0, or {LEAST_NOISE:g} to {MOST_NOISE:g}", possible_noise),
            ("clipping_norm", self.clipping_norm, "a number above 0", lambda x: 0 < x < math.inf),
            ("batch_size", self.batch_size, "1 or more", lambda x: x >= 1),
            ("test_seed", self.test_seed, "0 or more", lambda x: x >= 0),
        ]
        for name, value, expected, holds in bounds:
            if value is not None and not holds(value):
                raise ConfigError(f"model.privacy.{name} is {value}; expected {expected}")
        if self.noise_multiplier == 0 and self.target_epsilon is not None:
            raise ConfigError("model.privacy.noise_multiplier is 0, which spends more than any target_epsilon at once")

    def stream(self) -> RandomStream:
        """Where noise and batches of one start of a run come from; never the same twice, but with `test_seed`."""
        return RandomStream.fresh() if self.test_seed is None else RandomStream.reproducible(self.test_seed)


class PrivateTraining:
    """One start of a private run: clips, adds noise, and keeps account.

    Args:
        options: how.
        texts: N, how many training texts there are; this number is taken to be known to everyone.
        stream: where the noise comes from; of no other start.
        ledger: written to here; None: another process does that, or nobody.

    Attributes:
        delta: δ.
        noise_multiplier: σ of the steps to come; 0 before `plan`.
        unwritten: steps that were taken before and are not in the ledger, which `open_ledger` writes down first.
        corpus: `corpus_digest` of the texts, for the ledger.
        unaccounted: whether weights were trained before without a ledger.
        remaining: how many more steps may be taken; None: as many as one likes.
    """

    def __init__(self, options: DPSGD, texts: int, stream: RandomStream, ledger: Ledger | None = None) -> None:
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
        self.options, self.texts, self.stream, self.ledger = options, texts, stream, ledger
        self.sample_rate = options.batch_size / texts
        self.history: tuple[Steps, ...] = ledger.history if ledger is not None else ()
        self.unwritten: tuple[Start, ...] = ()
        self.corpus, self.unaccounted = "", False
        self.noise_multiplier = 0.0
        self.remaining: int | None = None
        self._totals: list[Tensor] = []
        self._last_step = -1
        self.gradients: PerTextGradients | None = None

    # -- the budget ----------------------------------------------------------------------------------------

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

    # -- a step --------------------------------------------------------------------------------------------

    def attach(self, model: nn.Module, losses: Losses | None = None, tolerance: float = 1e-3) -> None:
        """Make ready to train a model, which is checked first.

        Args:
            model: whose trained parameters get gradients.
            losses: what is trained on, for the check; None: no check.
            tolerance: of the check.

        Raises:
            ModelError: no gradient of each text can be had.
        """
        self.gradients = PerTextGradients(model)
        if losses is not None:
            rounding = self.gradients.check(losses, tolerance)
            log.info("Without another text in its batch a text's gradient changes by %.2g of its norm.", rounding)
        self._clear()

    def _clear(self) -> None:
        assert self.gradients is not None
        self._totals = [torch.zeros_like(p, dtype=torch.float64) for p in self.gradients.parameters]

    def accumulate(self, losses: Callable[[], Tensor]) -> Tensor:
        """Take in some texts of a step.

        Args:
            losses: computes the loss of each of them, (B,) with gradient; the same function of a text whatever the
                others are.

        Returns:
            What it computed, without gradient.
        """
        assert self.gradients is not None
        with self.gradients.recording():
            found = losses()
            add_clipped_(self._totals, self.gradients.of(found), self.options.clipping_norm)
        return found.detach()

    def finish_step(self, step: int, total: Callable[[Tensor], Tensor] | None = None, noisy: bool = True) -> None:
        """Charge the step, and give the parameters the gradient with which it may be taken.

        Args:
            step: its number within this start of the run.
            total: sums a tensor over processes; None: there is one.
            noisy: whether this process adds the noise; exactly one does, and writes the ledger.

        Raises:
            RuntimeError: the step was taken already, or the budget does not allow another.
        """
        assert self.gradients is not None
        if step <= self._last_step:
            raise RuntimeError(f"noise may be used once only: step {step} was taken already")
        if self.remaining == 0:
            raise RuntimeError("the privacy budget is spent")
        self._last_step = step
        if self.ledger is not None:
            self.ledger.charge()
        self.history = merged([*self.history, Steps(self.noise_multiplier, self.sample_rate, 1)])
        self.remaining = None if self.remaining is None else self.remaining - 1
        if noisy:
            add_noise_(self._totals, self.noise_multiplier * self.options.clipping_norm, self.stream, step)
        if total is not None:
            self._totals = _summed(self._totals, total)
        for parameter, gradient in zip(self.gradients.parameters, self._totals, strict=True):
            parameter.grad = (gradient / self.options.batch_size).to(parameter.dtype)
        self._clear()

    def close(self) -> None:
        """Leave the model as any other."""
        if self.gradients is not None:
            self.gradients.remove()
            self.gradients = None


def _summed(tensors: Sequence[Tensor], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Each tensor's sum over processes, in one message."""
    flat = total(torch.cat([t.flatten() for t in tensors]))
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


# -- going on ----------------------------------------------------------------------------------------------


def history_of(spent: Mapping[str, Any]) -> tuple[Steps, ...]:
    """The steps that a checkpoint knows of."""
    return tuple(Steps(float(noise), float(rate), int(number)) for noise, rate, number in spent["history"])


def compare(ledger: Ledger, spent: Mapping[str, Any]) -> None:
    """Compare a ledger with what a checkpoint of its run keeps: the steps until then, and the hash of the last line.

    Raises:
        CheckpointError: they differ.
    """
    known = history_of(spent)
    there = _first(ledger.history, number_of_steps(known))
    chain = spent.get("ledger_chain", "")
    if there != merged(known):
        raise CheckpointError(
            f"the privacy ledger {ledger.path} has other steps than this checkpoint: {_shown(there)}; expected "
            f"{_shown(known)}. One of the two was changed"
        )
    if chain and not ledger.holds(chain):
        raise CheckpointError(
            f"the privacy ledger {ledger.path} has no line with the hash (chain) {chain[:16]}… of this checkpoint: it "
            "was written anew or changed, and what was spent cannot be known from it; expected the ledger of its run"
        )


def _first(history: Sequence[Steps], number: int) -> tuple[Steps, ...]:
    """The first steps, so many of them."""
    found = []
    for steps in history:
        found.append(steps._replace(number=min(steps.number, number)))
        number -= found[-1].number
    return merged(found)


def _shown(history: Sequence[Steps]) -> str:
    parts = [f"{n} steps with noise multiplier {noise:g} and sample rate {rate:g}" for noise, rate, n in history]
    return ", ".join(parts) or "no step"


def ledger_of(spent: Mapping[str, Any], given: str | None, checkpoint: str | None) -> Ledger:
    """The ledger with which a run that goes on from a checkpoint must go on too.

    Args:
        spent: what the checkpoint keeps (`Spent`).
        given: `model.privacy.ledger`.
        checkpoint: path of the checkpoint.

    Raises:
        CheckpointError: it is not there, is another run's, or is not what the checkpoint knows.
    """
    places = [Path(given)] if given is not None else [Path(spent["ledger"])]
    if given is None and checkpoint is not None:  # moved together with the checkpoint
        name = places[0].name
        places += [folder / name for folder in list(Path(checkpoint).absolute().parents)[:2]]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise CheckpointError(
            f"its privacy ledger {places[0]} is not there, and without it steps taken after this checkpoint would be "
            "forgotten; put it back, or set model.privacy.ledger to where it is"
        )
    ledger = Ledger(path)
    taken = number_of_steps(history_of(spent))
    if ledger.id != spent["ledger_id"] or ledger.steps < taken:
        raise CheckpointError(
            f"the privacy ledger {path} is not the one of this checkpoint: it begins with {ledger.id or 'nothing'} and "
            f"has {ledger.steps} steps; expected {spent['ledger_id']} and at least {taken}"
        )
    compare(ledger, spent)
    return ledger
