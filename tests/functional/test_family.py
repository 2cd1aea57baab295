"""The strongest of several attacks: by hand, and how often its interval misses."""

import pytest
import torch

from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.family import strongest


def around(value, half):
    """An interval whose half-width grows with the level, `half` at 95 %."""
    return lambda level: (value - half * level / 0.95, value + half * level / 0.95)


def test_of_one_attack_it_is_the_attack():
    name, value, interval = strongest({"a": 0.7}, {"a": around(0.7, 0.1)})
    assert (name, value) == ("a", 0.7)
    assert interval(0.95) == pytest.approx((0.6, 0.8))


def test_the_surest_is_named_and_not_the_highest():
    intervals = {"sure": around(0.7, 0.02), "high": around(0.75, 0.2), "weak": around(0.5, 0.02)}
    name, value, interval = strongest({"sure": 0.7, "high": 0.75, "weak": 0.5}, intervals)
    assert (name, value) == ("sure", 0.7)
    low, high = interval(0.95)
    assert low == pytest.approx(0.7 - 0.02 * (1 - 0.05 / 3) / 0.95)
    assert high == pytest.approx(0.95)


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.7, pytest.param(0.0, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_covers_the_highest_true_value(alike, shift):
    """Eleven attacks of one true AUROC, on 60 and 60 texts: at most 2.5 % miss at either side."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.special.ndtr(torch.tensor(shift / 2**0.5)).item()
    member, runs, low_missed, high_missed = torch.arange(120) < 60, 600, 0, 0
    for _ in range(runs):
        common = torch.randn(120, generator=generator)
        found = {}
        for attack in range(11):
            noise = alike**0.5 * common + (1 - alike) ** 0.5 * torch.randn(120, generator=generator)
            found[str(attack)] = auroc_interval(noise + shift * member, member)
        values = {name: value for name, (value, _) in found.items()}
        low, high = strongest(values, {name: interval for name, (_, interval) in found.items()})[2](0.95)
        low_missed, high_missed = low_missed + (low > truth), high_missed + (high < truth)
    assert low_missed <= 0.025 * runs + 3 * (0.025 * runs) ** 0.5
    assert high_missed <= 0.025 * runs + 3 * (0.025 * runs) ** 0.5
