"""For any order of callbacks, the metrics are the same, and callbacks that monitor them see them in time."""

import random

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lit_mem.callbacks import (
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    Perplexity,
    PerplexityDropWarning,
    Slices,
    SpanExtraction,
    Stopwatch,
)

pytestmark = pytest.mark.slow


def listed(folder):
    return [
        Perplexity(),
        MembershipInference(plots=False),
        Extraction(n_members=4, n_heldout=4),
        Extractability(),
        SpanExtraction(),
        Correlation(plots=False),
        Movers(),
        Slices(min_size=3, plots=False),
        PerplexityDropWarning(),
        Stopwatch(),
        EarlyStopping("memorization/perplexity_gap", mode="max", patience=1),
        MemorizationCheckpoint(dirpath=str(folder), export=False),
        MemorizationEarlyStopping(["mia/loss_auroc > 0.6"]),
    ]


@pytest.fixture(scope="module")
def fitted(module, data, trainer, tmp_path_factory):
    """The final metrics of a fit, with its callbacks arranged by a function."""

    def fit(arrange):
        callbacks = listed(tmp_path_factory.mktemp("checkpoints"))
        by_type = {type(callback): callback for callback in callbacks}
        arrange(callbacks)
        torch.manual_seed(1)
        t = trainer(callbacks, max_epochs=4)
        t.fit(module(dropout=0.0, targets=["all-linear"]), data(train_size=16, heldout_size=16))
        metrics = {name: float(value) for name, value in t.callback_metrics.items() if not name.startswith("time/")}
        keeper, stopping = by_type[MemorizationCheckpoint], by_type[EarlyStopping]
        return {
            "metrics": metrics,
            "epochs": t.current_epoch,
            "reason": by_type[MemorizationEarlyStopping].reason,
            "kept": (keeper.epochs, float(keeper.best_model_score)),
            "stopping": (float(stopping.best_score), stopping.wait_count),
        }

    return fit


@pytest.fixture(scope="module")
def expected(fitted):
    return fitted(lambda callbacks: None)


def test_there_is_something_to_compare(expected):
    assert expected["epochs"] == 3
    assert "mia/loss_auroc is" in expected["reason"]
    assert expected["kept"][0].keys() == {"best", "safe", "last"}
    assert len(expected["metrics"]) > 100


@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(list.reverse, id="reversed"),
        pytest.param(random.Random(1).shuffle, id="shuffled", marks=pytest.mark.slow),
    ],
)
def test_the_order_of_callbacks_changes_nothing(fitted, expected, arrange):
    found = fitted(arrange)
    differing = {name for name, value in expected["metrics"].items() if found["metrics"].get(name) != value}
    assert not differing
    assert found == expected
