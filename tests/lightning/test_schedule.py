"""The learning rate by step."""

import math

import pytest
import torch

from lit_mem.errors import ConfigError
from lit_mem.lightning.schedule import scheduled


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(
    ("shape", "warmup", "expected"),
    [
        ("constant", 0.4, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("linear", 0.2, [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]),
    ],
)
def test_rates(shape, warmup, expected):
    found, steps = scheduled(optimizer(), shape, warmup, lambda: 10.0)
    rates = []
    for _ in range(10):
        rates.append(found["optimizer"].param_groups[0]["lr"])
        found["optimizer"].step()
        found["lr_scheduler"]["scheduler"].step()
    assert rates == pytest.approx(expected)
    assert found["lr_scheduler"]["interval"] == "step"
    assert steps == 10


def test_a_constant_rate_needs_no_number_of_steps():
    made = optimizer()
    assert scheduled(made, "constant", 0.0, lambda: pytest.fail("was computed")) == (made, 0)


@pytest.mark.parametrize(("shape", "warmup"), [("linear", 0.0), ("cosine", 0.1), ("constant", 0.1)])
def test_an_unknown_number_of_steps_is_rejected(shape, warmup):
    with pytest.raises(ConfigError, match=rf"model\.lr_schedule is {shape} with a warm-up of {warmup:g}.*max_epochs"):
        scheduled(optimizer(), shape, warmup, lambda: math.inf)
