"""Callbacks only observe: training is bit-identical with and without them, and after a resume."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lit_mem.attacks import ConReCaLL, DeltaStandardized, GradientNorm, Lowercase, ReCaLL
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.callbacks import (
    Baseline,
    Correlation,
    EpochTable,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    PerExampleTable,
    Perplexity,
    PerplexityDropWarning,
    Slices,
    SpanExtraction,
    Stopwatch,
)
from lit_mem.generation.decoding import Sampling


def probing_attacks():
    return {
        "recall": ReCaLL(shots=1),
        "con_recall": ConReCaLL(shots=1),
        "lowercase": Lowercase(),
        "delta_standardized": DeltaStandardized(),
        "gradient_norm": GradientNorm(),
    }


def all_callbacks(folder):
    return [
        Perplexity(),
        MembershipInference(default_attacks() | probing_attacks()),
        Extraction(n_members=6, n_heldout=6, prefix=[0.3, 0.6]),
        Extraction(n_members=4, n_heldout=4, sampling=Sampling(temperature=0.8, top_k=5), group="sampled"),
        Extractability(),
        SpanExtraction(),
        Correlation(),
        Movers(),
        Slices(min_size=2),
        PerExampleTable(str(folder / "examples"), text=True),
        PerplexityDropWarning(),
        Stopwatch(),
        EpochTable(),
        Baseline(),
        MemorizationEarlyStopping(["mia/reference_auroc > 2"]),
        MemorizationCheckpoint(dirpath=str(folder)),
    ]


FEW = {"train_size": 9, "heldout_size": 6, "batch_size": 3}


def fit(module, data, trainer, trained, callbacks, **kwargs):
    torch.manual_seed(1)
    model = module()
    trainer(callbacks, **kwargs).fit(model, data(**FEW))
    return trained(model)


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert left
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("validate_first", [0, pytest.param(-1, marks=pytest.mark.slow)])
def test_weights_are_bit_identical_with_all_callbacks_on_and_off(
    module, data, trainer, trained, tmp_path, validate_first
):
    off = fit(module, data, trainer, trained, [], num_sanity_val_steps=validate_first)
    on = fit(module, data, trainer, trained, all_callbacks(tmp_path), num_sanity_val_steps=validate_first)
    assert_same(off, on)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_weights_are_the_same_without_any_validation(module, data, trainer, trained, tmp_path):
    plain = fit(module, data, trainer, trained, [], limit_val_batches=0, num_sanity_val_steps=0)
    on = fit(module, data, trainer, trained, all_callbacks(tmp_path))
    assert_same(plain, on)


def test_dropout_makes_this_a_real_test(module, data, trainer, trained):
    """Another seed must change the weights; otherwise the tests above could not fail."""
    weights = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = module()
        model.configure_model()
        torch.manual_seed(seed)
        trainer([], max_epochs=1, num_sanity_val_steps=0).fit(model, data(**FEW))
        weights.append(trained(model))
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class DrawsAndRaises(MembershipInference):
    """A faulty measure: it draws random numbers and fails, and the user's code carries on."""

    def results(self, trainer, pl_module):
        torch.rand(7)
        raise RuntimeError("broken measure")

    def on_validation_epoch_end(self, trainer, pl_module):
        try:
            super().on_validation_epoch_end(trainer, pl_module)
        except RuntimeError:
            return


def test_a_measure_that_raises_leaves_the_random_state_alone(module, data, trainer, trained):
    off = fit(module, data, trainer, trained, [])
    on = fit(module, data, trainer, trained, [DrawsAndRaises()])
    assert_same(off, on)


class Interrupt(Callback):
    """Ends training after a number of epochs, as a killed job would after its last checkpoint."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epochs:
            raise SystemExit


class Record(Callback):
    def __init__(self):
        self.figures = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            figures = {k: float(v) for k, v in trainer.callback_metrics.items() if not k.startswith("time/")}
            self.figures.append(copy.deepcopy(figures))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_resumed_run_is_the_uninterrupted_one(module, data, trainer, trained, tmp_path):
    whole = Record()
    expected = fit(
        module, data, trainer, trained, [*all_callbacks(tmp_path / "a"), whole], max_epochs=4, num_sanity_val_steps=0
    )

    torch.manual_seed(1)
    first = Record()
    with pytest.raises(SystemExit):
        trainer([*all_callbacks(tmp_path / "b"), first, Interrupt(2)], max_epochs=4, num_sanity_val_steps=0).fit(
            module(), data(**FEW)
        )
    torch.manual_seed(99)  # a new process has another random state
    resumed, rest = module(), Record()
    trainer([*all_callbacks(tmp_path / "b"), rest], max_epochs=4).fit(
        resumed, data(**FEW), ckpt_path=str(tmp_path / "b" / "last.ckpt"), weights_only=True
    )
    assert_same(expected, trained(resumed))
    assert first.figures + rest.figures == whole.figures
    assert len(rest.figures) == 2
