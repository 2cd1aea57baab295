"""How often noise alone stops a run: simulated runs whose true AUROCs are at or below the limit at every epoch.

Each text has a fixed effect, the same at every epoch, and noise that is new at each: correlated scores, like those of a
run, which scores the same texts repeatedly.
"""

import pytest
import torch

from lit_mem.audit.known import Known
from lit_mem.audit.stopping import Stopping
from lit_mem.audit.thresholds import Limits
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.family import strongest
from lit_mem.functional.spending import ALPHA

KNOWN = Known(metrics=frozenset({"mia/a_auroc", "mia/a_auroc_low", "mia/a_auroc_high"}))


def correlated(shape, alike, generator):
    common = torch.randn(shape[-1], generator=generator)
    return alike**0.5 * common + (1 - alike) ** 0.5 * torch.randn(shape, generator=generator)


def stopped(area, epochs, n, alike, attacks, limits, generator, planned=True):
    """Whether a run of this many epochs is stopped, by one attack or by the strongest of several."""
    member = torch.arange(2 * n) < n
    shift = 2**0.5 * torch.special.ndtri(torch.tensor(area, dtype=torch.float64)).item() if area != 0.5 else 0.0
    stop = Stopping(Limits([f"mia/a_auroc > {limit}" for limit in limits], lower_bound=True), "any", 1)
    stop.planned = epochs if planned else None
    between = correlated((attacks, 1, 2 * n), 0.0, generator)
    for _ in range(epochs):
        new = correlated((attacks, 2 * n), 0.5, generator)
        scores = alike**0.5 * between[:, 0] + (1 - alike) ** 0.5 * new + shift * member
        found = {str(i): auroc_interval(one, member) for i, one in enumerate(scores)}
        values = {name: value for name, (value, _) in found.items()}
        _, value, interval = strongest(values, {name: one for name, (_, one) in found.items()})
        over = stop.beyond({"mia/a_auroc": value}, {"mia/a_auroc": interval}, KNOWN, "stop")
        if stop.count(bool(over), over):
            return True
    return False


def share(runs, **options):
    generator = torch.Generator().manual_seed(0)
    return sum(stopped(**options, generator=generator) for _ in range(runs)) / runs


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (30, 300))])
@pytest.mark.parametrize("alike", [0.5, pytest.param(0.9, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("epochs", [12, pytest.param(50, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("area", [0.5, pytest.param(0.8, marks=pytest.mark.exhaustive)])
def test_one_attack_at_the_limit_itself(n, alike, epochs, area):
    """The worst case: the true value equals the limit."""
    runs = 300
    found = share(runs, area=area, epochs=epochs, n=n, alike=alike, attacks=1, limits=[area])
    assert found <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("epochs", [12, 50])
@pytest.mark.parametrize("alike", [0.5, 0.9])
def test_the_strongest_of_eleven_and_three_thresholds(epochs, alike):
    runs = 100
    found = share(runs, area=0.5, epochs=epochs, n=100, alike=alike, attacks=11, limits=[0.5, 0.51, 0.6])
    assert found <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


@pytest.mark.slow
@pytest.mark.exhaustive
def test_where_the_number_of_looks_is_not_known():
    runs = 300
    found = share(runs, area=0.5, epochs=12, n=100, alike=0.7, attacks=1, limits=[0.5], planned=False)
    assert found <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


@pytest.mark.slow
def test_a_leak_is_still_found():
    """The correction costs little if there is a leak: AUROC 0.75 against a limit of 0.6."""
    assert share(50, area=0.75, epochs=12, n=300, alike=0.9, attacks=1, limits=[0.6]) == 1.0
    assert share(5, area=0.75, epochs=12, n=300, alike=0.9, attacks=11, limits=[0.6]) == 1.0
