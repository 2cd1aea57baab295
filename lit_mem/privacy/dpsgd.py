"""Options of DP-SGD."""

from __future__ import annotations

from dataclasses import dataclass

from lit_mem.errors import ConfigError, check_range
from lit_mem.functional.random_stream import RandomStream
from lit_mem.privacy.accountant import LEAST_NOISE, MOST_NOISE, Kind


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
        where, noise = "model.privacy", self.noise_multiplier
        check_range(f"{where}.target_epsilon", self.target_epsilon, above=0, or_null=True)
        check_range(f"{where}.delta", self.delta, above=0, below=1, or_null=True)
        if noise not in (0, None):
            check_range(f"{where}.noise_multiplier", noise, at_least=LEAST_NOISE, at_most=MOST_NOISE, hint=", or 0")
        check_range(f"{where}.clipping_norm", self.clipping_norm, above=0)
        check_range(f"{where}.batch_size", self.batch_size, at_least=1)
        check_range(f"{where}.test_seed", self.test_seed, at_least=0, or_null=True)
        if self.noise_multiplier == 0 and self.target_epsilon is not None:
            raise ConfigError("model.privacy.noise_multiplier is 0, which spends more than any target_epsilon at once")

    def stream(self) -> RandomStream:
        """Where noise and batches of one start of a run come from; never the same twice, but with `test_seed`."""
        return RandomStream.fresh() if self.test_seed is None else RandomStream.reproducible(self.test_seed)
