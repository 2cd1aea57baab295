"""Poisson batches: examples drawn independently with one probability, one draw for all ranks, none reused."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader

from lit_mem.data.encoding import Encoded
from lit_mem.data.poisson import PoissonBatches, StepBatches, filled
from lit_mem.functional.random_stream import RandomStream

STREAM = RandomStream.reproducible(5)


def epochs(sampler, n):
    drawn = []
    for epoch in range(n):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    return drawn


def test_each_example_is_in_each_batch_with_the_same_probability():
    sampler = PoissonBatches(40, 10, STREAM)
    steps = [batch for epoch in epochs(sampler, 500) for batch in epoch]
    assert sampler.sample_rate == 0.25
    assert len(steps) == 500 * 4
    times = np.bincount(np.concatenate(steps), minlength=40)
    expected, deviation = 0.25 * len(steps), (0.25 * 0.75 * len(steps)) ** 0.5
    assert np.abs(times - expected).max() < 4.5 * deviation
    assert stats.chisquare(times).pvalue > 0.001
    # Sizes vary as those of independent draws do: binomially.
    sizes = np.array([len(step) for step in steps])
    assert sizes.mean() == pytest.approx(10, abs=4 * (7.5 / len(steps)) ** 0.5)
    assert sizes.var() == pytest.approx(7.5, rel=0.15)


def test_examples_are_drawn_independently():
    sampler = PoissonBatches(12, 6, STREAM)
    present = np.zeros((2000, 12))
    for i, batch in enumerate(batch for epoch in epochs(sampler, 1000) for batch in epoch):
        present[i, batch] = 1
    correlation = np.corrcoef(present.T) - np.eye(12)
    assert np.abs(correlation).max() < 4.5 / 2000**0.5


@pytest.mark.parametrize(("size", "batch_size", "steps"), [(40, 10, 4), (41, 10, 5), (93, 1, 93), (9, 8, 2)])
def test_an_epoch_draws_each_example_once_on_average(size, batch_size, steps):
    assert len(PoissonBatches(size, batch_size, STREAM)) == steps


def test_empty_batches_come_too():
    sampler = PoissonBatches(50, 1, STREAM)
    sizes = [len(batch) for epoch in epochs(sampler, 10) for batch in epoch]
    assert len(sizes) == 500
    assert np.mean([size == 0 for size in sizes]) == pytest.approx(np.exp(-1), abs=0.08)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_draw_and_no_example(world):
    whole = epochs(PoissonBatches(31, 7, STREAM), 20)
    parts = [epochs(PoissonBatches(31, 7, STREAM, world, rank), 20) for rank in range(world)]
    for epoch in range(20):
        for step, batch in enumerate(whole[epoch]):
            dealt = [parts[rank][epoch][step] for rank in range(world)]
            assert sorted(i for share in dealt for i in share) == batch
            assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_no_draw_is_used_twice():
    sampler = PoissonBatches(40, 10, STREAM)
    first = list(sampler)
    with pytest.raises(RuntimeError, match="used only once"):
        next(iter(sampler))
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_another_stream_draws_otherwise():
    drawn = [list(PoissonBatches(40, 10, RandomStream.fresh())) for _ in range(2)]
    assert drawn[0] != drawn[1]


def examples(lengths):
    return [Encoded(torch.full((n,), i), torch.full((n,), i), i, True) for i, n in enumerate(lengths)]


def test_a_step_is_split_by_width_and_keeps_every_example():
    data = StepBatches(examples([3, 9, 4, 20, 2, 12]), batch_size=2)
    batches = data[[4, 0, 1, 3, 2, 5]]
    assert [batch["example_id"].tolist() for batch in batches] == [[3], [1, 5], [4, 0], [2]]
    assert [batch["input_ids"].shape[1] for batch in batches] == [24, 12, 8, 8]
    assert data[[]] == []


def test_a_text_is_padded_alike_whatever_is_beside_it():
    lengths = list(range(1, 60))
    data = StepBatches(examples(lengths), batch_size=3)
    alone = {i: data[[i]][0]["input_ids"].shape[1] for i in range(59)}
    for batch in data[list(range(59))]:
        assert {alone[i] for i in batch["example_id"].tolist()} == {batch["input_ids"].shape[1]}
    for i, n in enumerate(lengths):
        assert n <= alone[i] <= max(8, 1.5 * n)


def test_the_loader_hands_on_empty_steps():
    data = examples([5] * 20)
    loader = DataLoader(StepBatches(data, 4), batch_size=None, sampler=PoissonBatches(20, 1, STREAM))
    steps = list(loader)
    assert len(steps) == 20
    assert [] in steps
    assert any(steps)


def test_rate_and_steps_come_from_the_public_size():
    """Which canaries are in must change neither."""
    one, other = (PoissonBatches(size, 10, STREAM, public_size=100) for size in (60, 80))
    assert one.sample_rate == other.sample_rate == 0.1
    assert len(one) == len(other) == 10
    mean = np.mean([len(other.drawn(epoch, 0)) for epoch in range(2000)])
    assert mean == pytest.approx(8, abs=4 * (80 * 0.1 * 0.9 / 2000) ** 0.5)


def test_a_batch_is_filled_with_rows_of_padding():
    """However many texts there are; what else is in the batch is of texts alone."""
    (batch,) = StepBatches(examples([3, 4, 2]), batch_size=4)[[0, 1, 2]]
    whole = filled(batch, 4)
    assert whole.keys() == {"input_ids", "labels"}
    assert all(torch.equal(whole[name][:3], batch[name]) for name in whole)
    assert whole["input_ids"].shape == whole["labels"].shape == (4, batch["input_ids"].shape[1])
    assert (whole["labels"][3] == -100).all()
    assert len(filled(batch, 2)["input_ids"]) == 3
