"""The guards restore what they guard, also when the body raises."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn

from lit_mem.guards import (
    evaluation_mode,
    preserved_random_state,
    preserved_requires_grad,
    random_state,
    set_random_state,
)


class Boom(Exception):
    pass


def draws():
    """Numbers of every global generator, those that keep a spare normal draw included."""
    return [
        torch.rand(3).tolist(),
        torch.randn(1).item(),
        torch.randperm(10).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),
        np.random.standard_normal(),
    ]


def stir(seed):
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    draws()


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("body", [draws, lambda: stir(9)])
def test_random_numbers_go_on_as_if_nothing_had_been_drawn(body, raises):
    stir(5)
    expected = draws()
    stir(5)
    with contextlib.suppress(Boom), preserved_random_state():
        body()
        if raises:
            raise Boom
    assert draws() == expected


def test_the_body_itself_does_draw():
    """What the test above relies on: the drawing would be seen."""
    stir(5)
    expected = draws()
    stir(5)
    draws()
    assert draws() != expected


def test_an_error_passes_through_the_guards():
    module = nn.Linear(1, 1)
    for guard in (preserved_random_state(), evaluation_mode(module), preserved_requires_grad(module)):
        with pytest.raises(Boom), guard:
            raise Boom


def test_random_state_survives_a_checkpoint(tmp_path):
    stir(5)
    random.gauss(0, 1)  # both generators now hold a spare normal draw
    np.random.standard_normal()
    torch.save({"random_state": random_state()}, tmp_path / "state.pt")
    expected = draws()
    stir(6)
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True)["random_state"])
    assert draws() == expected


def test_reading_the_random_state_draws_nothing():
    stir(5)
    expected = draws()
    stir(5)
    random_state()
    set_random_state(random_state())
    assert draws() == expected


def blocks():
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)), nn.BatchNorm1d(2))
    module.train()
    module[1].eval()  # a frozen part inside a training whole
    module[1][1].train()
    return module


@pytest.mark.parametrize("raises", [False, True])
def test_evaluation_mode_gives_each_submodule_its_own_flag_back(raises):
    module = blocks()
    before = [m.training for m in module.modules()]
    assert len(set(before)) == 2
    with contextlib.suppress(Boom), evaluation_mode(module):
        assert not any(m.training for m in module.modules())
        assert not torch.is_grad_enabled()
        if raises:
            raise Boom
    assert [m.training for m in module.modules()] == before
    assert torch.is_grad_enabled()


def test_evaluation_mode_nests_and_leaves_no_gradient_off_as_it_was():
    module = blocks().eval()
    with torch.no_grad():
        with evaluation_mode(module), evaluation_mode(module[0]):
            pass
        assert not torch.is_grad_enabled()
    assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("raises", [False, True])
def test_requires_grad_is_given_back_to_each_parameter(raises):
    module = blocks()
    module[0].weight.requires_grad_(False)
    module[1][1].bias.requires_grad_(False)
    before = [p.requires_grad for p in module.parameters()]
    assert len(set(before)) == 2
    for everything in (True, False):
        with contextlib.suppress(Boom), preserved_requires_grad(module):
            module.requires_grad_(everything)
            if raises:
                raise Boom
        assert [p.requires_grad for p in module.parameters()] == before
