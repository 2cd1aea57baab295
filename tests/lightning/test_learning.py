"""Whether a model has learned more than noise."""

import pytest
import torch

from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.errors import CheckpointError
from lit_mem.lightning.end_of_fit import summary
from lit_mem.lightning.learning import Learning

N_TOKENS = torch.arange(10.0, 50.0, dtype=torch.float64)


def table(loss, members=None):
    """(40,) losses per token of held-out texts, and of members if given."""
    n = len(N_TOKENS)
    losses, tokens, ids = loss * N_TOKENS, N_TOKENS, torch.arange(n if members is None else 2 * n)
    if members is not None:
        losses, tokens = torch.cat([losses, members * N_TOKENS]), torch.cat([tokens, tokens])
    return ScoreTable(ids, ids >= n, {"logprob": -losses, "n_tokens": tokens})


def noise_of_no_mean():
    noise = torch.randn(len(N_TOKENS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise - (noise * N_TOKENS).sum() / N_TOKENS.sum()  # the mean loss per token falls by exactly `fall`


def after(fall, spread, start=4.0):
    noise = noise_of_no_mean()
    learning = Learning()
    learning.start(table(torch.full_like(N_TOKENS, start)))
    learning.note(table(start - fall + spread * noise))
    return learning


@pytest.mark.parametrize(
    ("fall", "spread", "hardly"),
    [
        (0.022, 0.01, True),  # beyond noise, and 0.55 % of the loss
        (0.2, 0.1, False),
        (0.2, 2.0, True),  # 5 % of the loss, within noise
        (-0.5, 0.1, False),  # the loss has risen
        (-0.2, 2.0, True),
        (-0.022, 0.01, True),
    ],
)
def test_less_than_noise_or_one_percent_is_hardly(fall, spread, hardly):
    learning = after(fall, spread)
    assert learning.loss_before == pytest.approx(4.0)
    assert learning.fall.value == pytest.approx(fall)
    assert learning.hardly_changed == hardly
    if hardly:
        assert f"{abs(fall):.4f} {'less' if fall > 0 else 'more'}" in learning.line()


def test_a_rise_is_no_lack_of_learning():
    learning = after(2.99 - 4.48, 0.1, start=2.99)
    assert learning.not_improved
    assert not learning.hardly_changed
    assert [number in learning.line() for number in ("2.990", "4.480")] == [True, True]
    for fall, spread in ((0.2, 0.1), (0.2, 2.0), (-0.2, 2.0)):
        assert not after(fall, spread).not_improved
    learning = after(0.01, 2.0)
    learning.note(table(torch.full_like(N_TOKENS, 6.0)))  # the first validation was within noise, a later one was not
    assert (learning.hardly_changed, learning.not_improved) == (False, True)


@pytest.mark.parametrize(("fall", "hardly"), [(0.01, True), (0.5, False)])
def test_what_members_learned_counts(fall, hardly):
    start = torch.full_like(N_TOKENS, 4.0)
    learning = Learning()
    learning.start(table(start, start))
    learning.note(table(start + noise_of_no_mean(), start - fall))
    assert learning.loss_before == pytest.approx(4.0)
    assert learning.members.value == pytest.approx(fall)
    assert (learning.hardly_changed, learning.not_improved) == (hardly, not hardly)


def test_the_largest_of_many_looks_is_tested_as_such():
    from scipy.stats import t

    spread = noise_of_no_mean()
    learning = after(0.0, 1.0)
    error = learning.fall.error
    critical = [float(t.isf(0.025 / looks, len(N_TOKENS) - 1)) for looks in (1, 5)]
    learning = Learning()
    start = torch.full_like(N_TOKENS, 4.0)
    learning.start(table(start))
    learning.note(table(start - sum(critical) / 2 * error + spread))
    assert not learning.hardly_changed
    for _ in range(4):
        learning.note(table(start))
    assert learning.looks == 5
    assert learning.hardly_changed
    again = Learning()
    again.load(learning.state())
    assert (again.looks, again.hardly_changed) == (5, True)
    again.load({name: value for name, value in learning.state().items() if name in ("before", "fall")})
    assert (again.looks, again.hardly_changed) == (1, False)  # written by an earlier version


def test_the_lowest_validation_counts_and_a_resumed_run_knows_it():
    learning = after(0.4, 0.1)
    learning.note(table(torch.full_like(N_TOKENS, 4.1)))
    assert not learning.hardly_changed
    again = Learning()
    again.load(learning.state())
    assert (again.fall, again.rise) == (learning.fall, learning.rise)
    assert not again.hardly_changed
    again.load({})  # written by an earlier version
    assert Learning().hardly_changed is False


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda s: s.clear() or s.update(fall=None), "before"),
        (lambda s: s["before"].pop("member"), "before"),
        (lambda s: s["before"].update(logprob=[1.0]), "before"),
        (lambda s: s["before"].update(n_tokens=torch.ones(3)), "before"),
        (lambda s: s.update(fall=[1.0, 2.0]), "fall"),
        (lambda s: s.update(fall="abc"), "fall"),
        (lambda s: s.pop("fall"), "fall"),
    ],
)
def test_a_damaged_state_is_rejected_by_name(damage, named):
    state = after(0.4, 0.1).state()
    Learning().load(state)
    damage(state)
    with pytest.raises(CheckpointError, match=rf"damaged: its learning\.{named}"):
        Learning().load(state)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(("lr", "hardly"), [(1e-6, True), pytest.param(5e-3, False, marks=pytest.mark.slow)])
def test_a_fit_says_so_beside_the_best_checkpoint(lr, hardly, module, data, trainer, tmp_path, caplog):
    keep = MemorizationCheckpoint(dirpath=str(tmp_path / "kept"))
    model = module(lr=lr, dropout=0.0, targets=["all-linear"])
    t = trainer([keep], max_epochs=2, num_sanity_val_steps=-1)
    t.fit(model, data(train_size=24, heldout_size=20) if hardly else data(train_size=60, heldout_size=30))
    assert model.learning.loss_before > 1
    fall = model.learning.loss_before - float(keep.best_model_score)
    assert model.learning.fall.value == pytest.approx(fall, abs=1e-5)
    assert ("hardly learned" in summary(keep)[0]) == hardly
    assert ("The model hardly learned" in caplog.text) == hardly
    assert ("model.optimizer.init_args.lr" in caplog.text) == hardly


@pytest.mark.slow
def test_without_a_whole_validation_before_training_nothing_is_known(module, data, trainer):
    model = module(lr=1e-6)
    trainer([], max_steps=1, num_sanity_val_steps=1).fit(model, data(scoring_tokens=200))
    assert model.learning.before is None
    assert not model.learning.hardly_changed
