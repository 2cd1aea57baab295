"""Options that would break the guarantee are rejected, with the reason."""

import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, LearningRateFinder
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from lit_mem.data.poisson import PoissonBatches
from lit_mem.errors import ConfigError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.lightning.private_options import reject_options, reject_sampler
from lit_mem.privacy.extra import import_opacus
from lit_mem.sharding import ShardedBase


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"precision": "bf16-true"},
            "trainer.precision is bf16-true, .*rounding breaks the bound; expected one of 32-true",
        ),
        ({"precision": "16-true"}, "trainer.precision is 16-true"),
        ({"accumulate_grad_batches": 4}, r"accumulate_grad_batches is 4, .*a step is one draw.*privacy\.batch_size"),
        ({"gradient_clip_val": 1.0}, r"gradient_clip_val is 1\.0, .*does not bound single text.*clipping_norm"),
        ({"overfit_batches": 2}, "overfit_batches is 2, .*drawn at random from all"),
        ({"callbacks": [LearningRateFinder()]}, "LearningRateFinder, .*tries out steps"),
        ({"callbacks": [GradientAccumulationScheduler({0: 2})]}, "GradientAccumulationScheduler"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_the_trainer(chosen, message, trainer):
    with pytest.raises(ConfigError, match=message):
        reject_options(trainer(**chosen), None)


def test_a_base_in_parts(trainer):
    with pytest.raises(ConfigError, match=r"trainer\.strategy is ShardedBase, .*wait for one another"):
        reject_options(trainer(strategy=ShardedBase()), None)


def test_mixed_precision_with_a_gradient_scaler():
    stand_in = SimpleNamespace(precision="16-mixed")
    with pytest.raises(ConfigError, match=r"trainer\.precision is 16-mixed"):
        reject_options(stand_in, None)


def test_texts_grouped_by_length(trainer, data):
    with pytest.raises(ConfigError, match=r"data\.group_by_length is true, .*other texts' lengths"):
        reject_options(trainer(), data(group_by_length=True))


def test_a_subset_of_different_texts(trainer, data):
    """One repeated row more would change the whole subset; without a subset it changes nothing."""
    with pytest.raises(ConfigError, match=r"deduplicate is exact and data\.train_size is set, .*whole random subset"):
        reject_options(trainer(), data(deduplicate="exact"))
    reject_options(trainer(), data(deduplicate="exact", train_size=None))


@pytest.mark.parametrize("chosen", [{}, {"precision": "bf16-mixed"}, {"precision": "64-true"}, {"strategy": "ddp"}])
def test_what_is_sound_passes(chosen, trainer, data):
    if "strategy" in chosen:
        chosen = {"strategy": DDPStrategy()}
    reject_options(trainer(limit_train_batches=3, **chosen), data())


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(range(9), batch_size=2, shuffle=True),
        DataLoader(range(9), batch_size=2, drop_last=True),
        DataLoader(range(9), batch_size=None),
        [[1, 2], [3]],
    ],
)
def test_batches_that_are_no_independent_draws(loader):
    with pytest.raises(ConfigError, match=r"sampler is \w+, .*each text is drawn independently, not for shuffled"):
        reject_sampler(SimpleNamespace(train_dataloader=loader), PoissonBatches)


def test_poisson_batches_pass():
    sampler = PoissonBatches(9, 2, RandomStream.fresh())
    loader = DataLoader(torch.arange(9), batch_size=None, sampler=sampler)
    reject_sampler(SimpleNamespace(train_dataloader=loader), PoissonBatches)


def test_the_extra_is_named_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"pip install 'lit_mem\[privacy\]'"):
        import_opacus()
