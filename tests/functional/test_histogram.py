"""Counts by bin: numpy's on the same edges, whatever the scores."""

import numpy as np
import pytest
import torch

from lit_mem.functional.histogram import histogram

SPREADS = {
    "normal": lambda x: x,
    "one value": lambda x: 0 * x + 2.5,
    "zero": lambda x: 0 * x,
    "far away": lambda x: 1e9 + 1e-3 * x,
    "tiny": lambda x: 5e-324 * (x > 0),
    "huge": lambda x: 1.7e308 * x.sign(),
}


@pytest.mark.parametrize("name", SPREADS)
def test_every_score_is_counted_once_and_in_its_bin(name):
    generator = torch.Generator().manual_seed(0)
    score = SPREADS[name](torch.randn(120, dtype=torch.float64, generator=generator))
    found = histogram(score[:100], score[100:])
    edges = np.array(found.edges)
    assert len(edges) == 31
    assert (np.diff(edges) > 0).all()
    assert (sum(found.members), sum(found.heldout)) == (100, 20)
    clamped = score.clamp(edges[0], edges[-1]).numpy()
    assert found.members == np.histogram(clamped[:100], edges)[0].tolist()
    assert found.heldout == np.histogram(clamped[100:], edges)[0].tolist()


def test_the_edges_are_rounded_and_not_scores():
    found = histogram(torch.tensor([-1.23456, 0.5]), torch.tensor([3.21098]))
    assert (found.edges[0], found.edges[-1]) == pytest.approx((-1.3, 3.3))
