"""Privacy accounting: epsilon from noise multiplier, sampling rate and number of steps.

A step: a Poisson-sampled batch that contains each text independently with probability q, the sum of gradients clipped
to norm C, and Gaussian noise with standard deviation σ·C. The bound is for adding or removing one text: two training
sets that differ in one row give nearly the same models, except with probability δ.

Epsilon is computed by Opacus (Yousefpour et al. 2021): composition of privacy loss random variables ("prv": Gopi, Lee
and Wutschitz 2021), or Rényi differential privacy ("rdp": Mironov 2017; Mironov, Talwar and Zhang 2019), which is
looser. Its third accountant ("gdp") is not used: it approximates by a central limit theorem, and can give less than the
true epsilon.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from lit_mem.privacy.extra import import_opacus

log = logging.getLogger(__name__)

Kind = Literal["prv", "rdp"]

_PRV_ERROR: Final = 0.01  # added to its result
_SMALL: Final = 0.1
_NOT_WORTH_IT: Final = 200.0
_MOST_POINTS: Final = 1e7  # points of the tight accountant's grids: about 2.5 GB and 10 seconds
MOST_NOISE: Final = 1e6
"""Maximum noise multiplier."""

LEAST_NOISE: Final = 1e-3
"""Minimum positive noise multiplier: below it an accountant takes minutes, for an epsilon above 500,000 per step."""


class Steps(NamedTuple):
    """Equal steps.

    Attributes:
        noise_multiplier: σ, the standard deviation of the noise in units of the clipping norm.
        sample_rate: q, the probability with which a text is in a step's batch.
        number: number of steps.
    """

    noise_multiplier: float
    sample_rate: float
    number: int


def possible_noise(multiplier: float) -> bool:
    """Whether a noise multiplier is 0 or within the bounds."""
    return multiplier == 0 or LEAST_NOISE <= multiplier <= MOST_NOISE


def merged(history: Iterable[Steps]) -> tuple[Steps, ...]:
    """Merge consecutive equal steps of a history.

    >>> merged([Steps(1.0, 0.1, 2), Steps(1.0, 0.1, 3), Steps(2.0, 0.1, 0)])
    (Steps(noise_multiplier=1.0, sample_rate=0.1, number=5),)
    """
    found: list[Steps] = []
    for steps in history:
        if not steps.number:
            continue
        if found and found[-1][:2] == steps[:2]:
            found[-1] = steps._replace(number=found[-1].number + steps.number)
        else:
            found.append(steps)
    return tuple(found)


def number_of_steps(history: Iterable[Steps]) -> int:
    """Total number of steps."""
    return sum(steps.number for steps in history)


def epsilon(history: Iterable[Steps], delta: float, kind: Kind = "prv") -> float:
    """An upper bound on the epsilon spent by these steps, at this δ.

    0 for no steps, infinite without noise. If the tighter accountant fails numerically, the looser one's bound is
    returned.

    Args:
        history: the steps, in any order.
        delta: δ, the probability with which the bound may fail.
        kind: the accountant.
    """
    return _epsilon(merged(history), delta, kind)


@lru_cache(maxsize=512)
def _epsilon(history: tuple[Steps, ...], delta: float, kind: Kind) -> float:
    if not history:
        return 0.0
    if any(steps.noise_multiplier <= 0 for steps in history):
        return math.inf
    loose = _rdp_epsilon(history, delta)
    # Time and memory of the tight one grow with epsilon, and a tight bound is useless there.
    if kind == "rdp" or loose > _NOT_WORTH_IT:
        return loose
    error = _feasible_error(history, delta, _PRV_ERROR)
    found = _prv_epsilon(history, delta, error)
    if found < _SMALL and (finer := _feasible_error(history, delta, _PRV_ERROR / 10)) < error:
        found = min(found, _prv_epsilon(history, delta, finer))
    if not math.isfinite(found):
        log.debug("PRV gives no bound for %s; RDP does: %g.", history, loose)
        return loose
    return found if error == _PRV_ERROR else min(found, loose)


def _feasible_error(history: Sequence[Steps], delta: float, error: float) -> float:
    """The error passed to the tight accountant: this one, or more if its grids would be too large."""
    return error * max(1.0, _points(history, delta, error) / _MOST_POINTS)


def _points(history: Sequence[Steps], delta: float, error: float) -> float:
    """Total number of points in Opacus' grids at this error, over all kinds of steps (Gopi et al. 2021, remark 5.6)."""
    reach = max(_rdp_epsilon(history, delta / 4000), error) + 3
    spacing = error / math.sqrt(number_of_steps(history) * math.log(12_000 / delta) / 2)
    return 2 * reach / spacing * len(history)


def _prv_epsilon(history: Sequence[Steps], delta: float, error: float) -> float:
    """Opacus' bound; infinite if it fails."""
    import_opacus()
    import numpy as np
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [tuple(steps) for steps in history]
    with _quietly(), np.errstate(all="ignore"):
        try:
            found = float(accountant.get_epsilon(delta, eps_error=error))
        except (ArithmeticError, RuntimeError, ValueError, MemoryError):
            return math.inf
    return found if math.isfinite(found) else math.inf


def _rdp_epsilon(history: Sequence[Steps], delta: float) -> float:
    """Opacus' bound; infinite if it fails."""
    import_opacus()
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    spent = sum(_rdp_of_a_step(noise, rate) * number for noise, rate, number in history)
    with _quietly():
        found, _ = get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=spent, delta=delta)
    return float(found) if math.isfinite(found) else math.inf


@lru_cache(maxsize=512)
def _rdp_of_a_step(noise_multiplier: float, sample_rate: float) -> Any:
    """RDP by order, cached: this takes most of the time, and equal steps cost the same."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    with _quietly():
        return compute_rdp(
            q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=RDPAccountant.DEFAULT_ALPHAS
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the library's warnings that its bound may not be tight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
