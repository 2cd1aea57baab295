"""Options of DP-SGD."""

from __future__ import annotations

from dataclasses import dataclass

from lit_mem.errors import ConfigError, check_range
from lit_mem.functional.random_stream import RandomStream
from lit_mem.privacy.accountant import LEAST_NOISE, MOST_NOISE, Kind


@dataclass
class DPSGD:
    """Differentially private fine-tuning of an adapter (Abadi et al. 2016, arXiv 1607.00133), with Opacus.

    Each step draws every text independently with probability batch_size / N, clips its gradient, and adds Gaussian
    noise to the sum. The spent budget is logged as `privacy/epsilon`. The unit of privacy is one row of the training
    set; if the data has groups, the epsilon of a person with as many rows as the largest group is also logged, at the
    start and at the end (`lit_mem.privacy.group`). Nothing else in a step may be random, so dropout is rejected
    (`lit_mem.privacy.randomness`).

    At least one of target_epsilon and noise_multiplier is required; with both, training ends at the target.

    Attributes:
        target_epsilon: the noise is chosen so that all steps spend at most this; training ends before more is spent.
        delta: probability that the bound fails; None: 1 / (10 N) for N training texts.
        noise_multiplier: standard deviation of the noise in units of the clipping norm.
        clipping_norm: maximum norm of each text's gradient.
        batch_size: expected training texts per step, over all devices. Texts per forward pass are data.batch_size:
            smaller batches are padded, so that every text is computed in the same shape.
        accountant: "prv" (tighter) or "rdp" (faster).
        ledger: the file in which each step is recorded before it is taken; None: `privacy.jsonl` in the run's folder
            (or, in a resumed run, the ledger of its checkpoint). An existing file is continued: its steps count.
        allow_unaccounted_start: allow weights that were trained before without a ledger (`model.adapter_path`). Epsilon
            then covers only the steps from here on, as stated in log and report, and does not bound what the weights
            reveal about the texts of that earlier training, which may be the same.
        test_seed: derive noise and batches from a seed, so that a run is reproducible. For tests only: anyone can then
            remove the noise, and nothing is private.
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
            raise ConfigError(
                "model.privacy has neither target_epsilon nor noise_multiplier; expected at least one of them"
            )
        where, noise = "model.privacy", self.noise_multiplier
        check_range(f"{where}.target_epsilon", self.target_epsilon, above=0, or_null=True)
        check_range(f"{where}.delta", self.delta, above=0, below=1, or_null=True)
        if noise not in (0, None):
            check_range(f"{where}.noise_multiplier", noise, at_least=LEAST_NOISE, at_most=MOST_NOISE, hint=", or 0")
        check_range(f"{where}.clipping_norm", self.clipping_norm, above=0)
        check_range(f"{where}.batch_size", self.batch_size, at_least=1)
        check_range(f"{where}.test_seed", self.test_seed, at_least=0, or_null=True)
        if self.noise_multiplier == 0 and self.target_epsilon is not None:
            raise ConfigError("model.privacy.noise_multiplier is 0, which exceeds any target_epsilon in one step")

    def stream(self) -> RandomStream:
        """The random stream of noise and batches for one start of a run; always fresh, except with `test_seed`."""
        return RandomStream.fresh() if self.test_seed is None else RandomStream.reproducible(self.test_seed)
