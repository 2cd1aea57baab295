"""Epsilon of a person with several rows, against closed forms and the library's own accountant."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

pytest.importorskip("opacus")
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp

from lit_mem.lightning.private_group import group_names, of_group
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.group import group_epsilon, rdp_of_a_step

ORDERS = (1.5, 2.0, 3.0, 8.5, 32.0, 63.0)


@pytest.mark.parametrize(("noise", "rate"), [(0.6, 0.05), (1.0, 0.25), (4.0, 0.01)])
def test_one_row_is_the_librarys(noise, rate):
    expected = compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=list(ORDERS))
    assert rdp_of_a_step(noise, rate, 1, ORDERS) == pytest.approx(expected, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_without_sampling_it_is_the_gaussian_mechanism_of_so_many_rows(rows):
    expected = [order * rows**2 / (2 * 1.3**2) for order in ORDERS]  # Mironov 2017, Corollary 3
    assert rdp_of_a_step(1.3, 1.0, rows, ORDERS) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [2, 5])
def test_order_two_and_three_are_sums_over_the_binomial(rows):
    """E_Q[(P/Q)^2] = sum w_i w_j exp(ij/s^2); of order 3 the sum over three with the pairs' products."""
    noise, rate = 0.9, 0.2
    w = binom.pmf(np.arange(rows + 1), rows, rate)
    k = np.arange(rows + 1)
    two = np.einsum("i,j,ij->", w, w, np.exp(np.multiply.outer(k, k) / noise**2))
    pairs = k[:, None, None] * k[None, :, None] + k[:, None, None] * k[None, None, :] + k[None, :, None] * k[None, None]
    three = np.einsum("i,j,k,ijk->", w, w, w, np.exp(pairs / noise**2))
    found = rdp_of_a_step(noise, rate, rows, (2.0, 3.0))
    assert found == pytest.approx([math.log(two), math.log(three) / 2], rel=1e-9)


def test_it_is_below_the_general_rule_of_renyi_privacy():
    """Mironov 2017, Proposition 2: 2 rows at order a/2 cost at most 3 times what one does at order a."""
    one = rdp_of_a_step(1.0, 0.1, 1, (4.0, 16.0, 32.0))
    assert (rdp_of_a_step(1.0, 0.1, 2, (2.0, 8.0, 16.0)) <= 3 * one).all()


@pytest.mark.parametrize("rows", [2, 4])
def test_the_metric_without_sampling_is_the_closed_form(rows):
    """T steps of a Gaussian mechanism of sensitivity k are one of k sqrt(T) / sigma; the bound is Renyi's."""
    noise, steps, delta = 8.0, 10, 1e-5
    found = of_group([Steps(noise, 1.0, steps)], delta, rows)
    orders = np.array(RDPAccountant.DEFAULT_ALPHAS)
    spent = steps * orders * rows**2 / (2 * noise**2)  # Mironov 2017, Corollary 3, and to (epsilon, delta) Balle 2020
    expected = (spent + np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)).min()
    assert found == {"privacy/largest_group": rows, "privacy/epsilon_largest_group": pytest.approx(expected, rel=1e-6)}
    # The exact curve of the Gaussian mechanism (Balle and Wang 2018, Theorem 8) lies below the bound.
    mu = rows * math.sqrt(steps) / noise
    exact = norm.cdf(mu / 2 - expected / mu) - math.exp(expected) * norm.cdf(-mu / 2 - expected / mu)
    assert 0 < exact < delta
    assert of_group([Steps(noise, 1.0, steps)], delta, 1) == {}


def test_above_64_rows_there_are_rows_and_no_epsilon():
    assert of_group([Steps(1.0, 0.1, 5)], 1e-5, 65) == {"privacy/largest_group": 65.0}
    assert group_names(65) == ["privacy/largest_group"]
    assert group_names(1) == []


@pytest.mark.slow
def test_a_history_of_steps():
    history = [Steps(1.0, 0.05, 40), Steps(1.4, 0.05, 10)]
    found = [group_epsilon(history, 1e-4, rows) for rows in (1, 2, 3, 10)]
    assert found[0] == pytest.approx(epsilon(history, 1e-4, "rdp"), rel=1e-4)
    assert found == sorted(found)
    assert found[0] < found[1]
    assert group_epsilon([], 1e-4, 3) == 0
    assert group_epsilon([Steps(0.0, 0.1, 1)], 1e-4, 3) == math.inf


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
def test_a_fit_logs_the_epsilon_of_the_largest_group_before_and_after(module, trainer, tmp_path, caplog):
    import json

    import torch

    from lit_mem.data.sources import TextFiles
    from lit_mem.lightning.datamodule import TextDataModule
    from lit_mem.privacy.dpsgd import DPSGD

    for name, people in (("train", [0, 0, 0, 1, 1, *range(2, 13)]), ("heldout", range(20, 26))):
        lines = [{"text": f"Patient {i} of set {name} took drug {p}.", "person": p} for i, p in enumerate(people)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = TextFiles(str(tmp_path / "train.jsonl"), str(tmp_path / "heldout.jsonl"), group_column="person")
    corpus = TextDataModule(source, batch_size=4, max_length=32, check=False)
    model = module(
        dropout=0.0, privacy=DPSGD(noise_multiplier=1.0, batch_size=4, test_seed=1, ledger=str(tmp_path / "ledger"))
    )
    torch.manual_seed(0)
    caplog.set_level("INFO")
    t = trainer([], max_steps=4)
    t.fit(model, corpus)
    assert model.metric_names()[-2:] == ["privacy/largest_group", "privacy/epsilon_largest_group"]
    assert t.callback_metrics["privacy/largest_group"] == 3
    logged = float(t.callback_metrics["privacy/epsilon_largest_group"])
    assert logged == pytest.approx(group_epsilon([Steps(1.0, 4 / 16, 4)], 1 / 160, 3))
    assert logged > float(t.callback_metrics["privacy/epsilon"])
    expected = f"{group_epsilon([Steps(1.0, 4 / 16, 4)], 1 / 160, 3):.4g}"
    lines = [
        r.getMessage()
        for r in caplog.records
        if f"up to 3 rows (the largest group): epsilon <= {expected}" in r.getMessage()
    ]
    assert len(lines) == 2  # before the first step and after the last
    assert f"4 steps, epsilon <= {epsilon([Steps(1.0, 4 / 16, 4)], 1 / 160):.4g}" in caplog.text
