"""The warning about a sudden fall: triggered by memorization, and only by it."""

import math

import pytest
import torch

from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks import Perplexity, PerplexityDropWarning
from lit_mem.errors import ConfigError
from lit_mem.lightning.perplexity_drop import losses


def table(per_token, n_tokens, member):
    ids = torch.arange(len(member))
    return ScoreTable(ids, member, {"loss": per_token * n_tokens, "n_tokens": n_tokens})


def runs(members_fall, heldout_fall, n=100, repeat=200, sd=0.3, seed=0):
    """Pairs of validations of 2n texts, whose losses fall as given, plus noise per text."""
    g = torch.Generator().manual_seed(seed)
    member = torch.arange(2 * n) < n
    fall = torch.where(member, members_fall, heldout_fall)
    for _ in range(repeat):
        n_tokens = torch.randint(5, 90, (2 * n,), generator=g).double()
        before = 3 + torch.randn(2 * n, generator=g, dtype=torch.float64)
        now = before - fall + sd * torch.randn(2 * n, generator=g, dtype=torch.float64)
        yield table(before, n_tokens, member), table(now, n_tokens, member)


def share_of_warnings(share, **options):
    warning = PerplexityDropWarning(share)
    found = [warning.message(*pair) is not None for pair in runs(**options)]
    return sum(found) / len(found)


def test_ordinary_learning_does_not_warn():
    """Members -46 %, held-out -43 %, as in a first epoch on a new domain."""
    assert share_of_warnings(0.1, members_fall=-math.log(0.54), heldout_fall=-math.log(0.57)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_noise_alone_warns_in_less_than_one_validation_in_a_hundred(n):
    """With the smallest share, so that only the test for noise decides; 0.5 % are expected."""
    rate = share_of_warnings(1e-9, members_fall=0.6, heldout_fall=0.6, n=n, repeat=2000)
    assert 0.001 < rate < 0.01


def test_memorization_warns():
    assert share_of_warnings(0.1, members_fall=0.6, heldout_fall=0.1) == 1
    assert share_of_warnings(0.1, members_fall=0.4, heldout_fall=-0.1) == 1


def test_share_is_how_far_the_ratio_of_perplexities_falls():
    """The gap grows by 0.4 nats, so the ratio falls by 1 - exp(-0.4) = 33 %."""
    (pair,) = runs(members_fall=0.4, heldout_fall=0.0, repeat=1, sd=0.0)
    assert PerplexityDropWarning(0.32).message(*pair) is not None
    assert PerplexityDropWarning(0.34).message(*pair) is None


def test_a_large_growth_within_its_noise_does_not_warn():
    assert share_of_warnings(0.05, members_fall=0.1, heldout_fall=0.0, n=4, sd=1.0) < 0.03


@pytest.mark.slow
@pytest.mark.exhaustive
def test_in_a_run_that_memorizes_it_warns_and_in_one_that_does_not_it_does_not(module, data, trainer, caplog):
    for lr, warned in ((3e-2, True), (1e-5, False)):
        caplog.clear()
        measure = Perplexity()
        t = trainer([measure, PerplexityDropWarning()])
        t.fit(module(dropout=0.0, targets=["all-linear"], lr=lr), data())
        assert ("a sign of memorization" in caplog.text) == warned
        found = losses(measure.examples)
        for side, name in (
            (found.members(), "memorization/perplexity_members"),
            (found.nonmembers(), "val/perplexity"),
        ):
            mean = side["loss"].sum() / side["n_tokens"].sum()
            assert math.exp(mean) == pytest.approx(float(t.callback_metrics[name]), rel=1e-6)


def test_a_resumed_run_compares_with_the_last_validation():
    (pair,) = runs(members_fall=0.6, heldout_fall=0.0, repeat=1)
    first, second = PerplexityDropWarning(), PerplexityDropWarning()
    first._last = pair[0]
    second.load_state_dict(first.state_dict())
    assert second.message(second._last, pair[1]) == first.message(*pair)
    PerplexityDropWarning().load_state_dict({"last": [3.0, 4.0]})  # written by an earlier version


def test_without_losses_of_single_texts_it_is_rejected(module, data, trainer):
    with pytest.raises(ConfigError, match="PerplexityDropWarning"):
        trainer([PerplexityDropWarning()]).fit(module(), data())
