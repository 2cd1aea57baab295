"""Every interval of a measure is logged at 95 % after its metric, and is available at any level."""

import torch

from lit_mem.audit.measure import Measure, Result, with_ends
from lit_mem.functional.auroc import auroc, auroc_interval
from lit_mem.functional.interval import wilson_interval


class Rates(Measure):
    """Two metrics, of which the first has an interval."""

    def names(self):
        return [*with_ends(["mine/rate"]), "mine/number"]

    def compute(self, run):
        interval = {"mine/rate": lambda level: wilson_interval(0.25, 40, level)}
        return Result({"mine/rate": 0.25, "mine/number": 7.0}, intervals=interval)


def test_ends_follow_their_metric_and_are_those_at_95(audited):
    found = audited(Rates())
    assert list(found.metrics) == ["mine/rate", "mine/rate_low", "mine/rate_high", "mine/number"] == Rates().names()
    assert (found.metrics["mine/rate_low"], found.metrics["mine/rate_high"]) == wilson_interval(0.25, 40)


def test_a_pass_gives_intervals_at_any_level(audited):
    found = audited(Rates())
    assert set(found.intervals) == {"mine/rate"}
    for level in (0.5, 0.95, 0.999):
        assert found.intervals["mine/rate"](level) == wilson_interval(0.25, 40, level)


def test_an_aurocs_interval_at_any_level_is_that_of_its_scores():
    score, member = torch.randn(50, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3 == 0
    for cluster in (None, torch.arange(50) // 2):
        value, interval = auroc_interval(score, member, cluster)
        for level in (0.5, 0.95, 0.999):
            assert (value, *interval(level)) == auroc(score, member, level, cluster)
