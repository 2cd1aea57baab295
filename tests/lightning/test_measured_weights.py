"""Third-party callbacks: the measured weights are the saved ones, and the module is built before their `setup`."""

import copy
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    EMAWeightAveraging,
    LambdaCallback,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from lit_mem.callbacks import Extraction, MemorizationCheckpoint, Perplexity
from lit_mem.errors import ConfigError
from lit_mem.lightning.measured_weights import MeasuredWeights, digest

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


class Average(pl.Callback):
    """A typical custom weight average: active during validation, and removed in one of two hooks."""

    def __init__(self, until="end", changes=0.5):
        self.until, self.changes, self.raw = until, changes, None

    def on_validation_epoch_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.raw = [p.detach().clone() for p in pl_module.parameters() if p.requires_grad]
            for p in (p for p in pl_module.parameters() if p.requires_grad):
                p.data.mul_(self.changes)

    def _back(self, pl_module):
        if self.raw is not None:
            for p, raw in zip((p for p in pl_module.parameters() if p.requires_grad), self.raw, strict=True):
                p.data.copy_(raw)

    def on_validation_epoch_end(self, trainer, pl_module):
        if self.until == "epoch_end":
            self._back(pl_module)

    def on_validation_end(self, trainer, pl_module):
        if self.until == "end":
            self._back(pl_module)


@pytest.fixture(scope="module")
def data(data):
    """As elsewhere, with fewer texts in the same number of steps."""
    return lambda **options: data(**({"train_size": 12, "batch_size": 3, "heldout_size": 6} | options))


@pytest.fixture
def fit(module, data, trainer, tmp_path):
    def run(*callbacks, **options):
        keep = MemorizationCheckpoint(dirpath=str(tmp_path / "kept"))
        t = trainer([*callbacks, Perplexity(), keep], **({"max_epochs": 1, "num_sanity_val_steps": 0} | options))
        t.fit(module(), data())
        return t

    return run


class MyAverage(WeightAveraging):
    """A custom subclass."""


@pytest.mark.parametrize(
    "callback",
    [
        EMAWeightAveraging(decay=0.8),
        WeightAveraging(),
        MyAverage(),
        StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_averages_of_lightning_are_rejected_before_the_model_is_built(callback, fit, module, data, trainer):
    with pytest.raises(ConfigError, match=f"callbacks contains {type(callback).__name__}, .* model.lr_schedule"):
        fit(callback)


def test_pruning_is_rejected(module, data, trainer):
    with pytest.raises(ConfigError, match=r"trainer.callbacks contains ModelPruning, .* model.model_id"):
        trainer([ModelPruning("l1_unstructured", amount=0.3)]).fit(module(), data())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("until", "others"),
    [
        pytest.param("epoch_end", [], id="alone-epoch_end"),
        pytest.param("end", [], id="alone-end", marks=pytest.mark.slow),
        *(
            pytest.param(until, [Extraction(n_members=2, n_heldout=2)], id=f"before extraction-{until}", marks=marks)
            for until, marks in (("end", ()), ("epoch_end", pytest.mark.slow))
        ),
    ],
)
def test_any_callback_that_swaps_weights_is_rejected_and_nothing_is_saved(until, others, fit, tmp_path):
    with pytest.raises(ConfigError, match=r"after step 4, .* \(one of Average\): remove it"):
        fit(Average(until), *others)
    assert not list(tmp_path.rglob("*.ckpt")) + list(tmp_path.rglob("*.safetensors"))


def test_a_swap_that_changes_nothing_is_none(fit, tmp_path):
    fit(Average("end", changes=1.0))
    assert (tmp_path / "kept" / "best.ckpt").is_file()


def test_what_was_measured_is_what_lies_in_checkpoint_and_export(fit, module, data, trainer, tmp_path):
    t = fit()
    measured = float(t.callback_metrics["val/loss"])
    for model, path in (
        (module(), tmp_path / "kept/best.ckpt"),
        (module(adapter_path=tmp_path / "kept/best-adapter"), None),
    ):
        (found,) = trainer().validate(model, data(), ckpt_path=path, weights_only=True, verbose=False)[:1]
        assert found["val/loss"] == pytest.approx(measured, abs=1e-6)


@pytest.mark.slow
def test_weights_changed_when_training_is_over_are_warned_of(fit, caplog):
    def double(trainer, pl_module):
        for p in (p for p in pl_module.parameters() if p.requires_grad):
            p.data.mul_(2)

    fit(LambdaCallback(on_train_end=double))
    assert "changed the trained weights after the last validation (one of LambdaCallback)" in caplog.text
    caplog.clear()
    fit()
    assert "changed the trained weights" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fit", pytest.param("validate", marks=pytest.mark.slow)])
def test_a_callback_finds_the_model_built_in_its_setup(stage, module, data, trainer):
    class Copies(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            self.copy = copy.deepcopy(pl_module)

    copies, model = Copies(), module()
    getattr(trainer([copies], max_steps=1), stage)(model, data())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert [name for name, p in copies.copy.named_parameters() if p.requires_grad] == names


@pytest.mark.slow
def test_what_is_frozen_in_setup_stays_frozen(module, data, trainer, trained):
    class FreezesFirstHalf(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            for name, p in pl_module.named_parameters():
                if "lora_A" in name:
                    p.requires_grad_(False)

        def finetune_function(self, pl_module, epoch, optimizer):
            pass

    model = module()
    t = trainer([FreezesFirstHalf()], max_steps=1)
    t.fit(model, data())
    assert all("lora_B" in name for name in trained(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_digest_sees_the_change_of_the_last_bit_of_one_element(dtype):
    model = nn.Linear(7, 5).to(dtype)
    model.bias.requires_grad_(False)
    before = digest(model)
    assert list(before) == ["weight"]
    assert digest(copy.deepcopy(model)) == before
    with torch.no_grad():
        model.bias.add_(1)  # not trained
        assert digest(model) == before
        whole = model.weight.view({8: torch.int64, 4: torch.int32, 2: torch.int16}[dtype.itemsize])
        whole[3, 2] += 1
    assert digest(model)["weight"] - before["weight"] == 1


def test_a_digest_is_the_sum_of_the_bits():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -2.0]]))
    assert digest(model) == {"weight": 0x3F800000 + (0xC0000000 - 2**32)}  # IEEE 754


@pytest.mark.parametrize("elsewhere", [True, False])
def test_weights_that_differ_on_another_process_end_the_run_on_all(elsewhere, module):
    model, measured, sent = module(), MeasuredWeights(), []
    model.configure_model()
    strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: sent.append((mine, all)) or elsewhere)
    trainer = SimpleNamespace(strategy=strategy, global_step=1, callbacks=[])
    measured.note(trainer, model)
    if elsewhere:
        with pytest.raises(ConfigError, match="a weight of another process changed"):
            measured.check(trainer, model)
    else:
        measured.check(trainer, model)
    assert sent == [(False, False)]
