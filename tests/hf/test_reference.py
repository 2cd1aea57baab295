"""The frozen reference of a trained model."""

import types

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lit_mem.errors import ConfigError
from lit_mem.hf.calling import check_whole
from lit_mem.models.base_models import load_base
from tests.hf.conftest import TINY, lora_options
from tests.hf.test_trainers_texts import rows_of

pytestmark = pytest.mark.slow


def base_losses(scored, callback):
    table = scored(callback)
    return torch.as_tensor(table["mia/loss"]) - torch.as_tensor(table["mia/reference"])


def started(trainer, callback, scored, model, **options):
    """Mean log-probabilities under the base before training, and under the reference after it."""
    measured = callback(**options)
    made = trainer(measured, model=model, num_train_epochs=2)
    made.evaluate()
    before = torch.as_tensor(scored(measured)["mia/loss"])
    made.train()
    return measured, before, base_losses(scored, measured)


def adapted(base, **options):
    torch.manual_seed(0)
    return get_peft_model(base, LoraConfig(**lora_options(**options)))


@pytest.mark.parametrize(
    "form",
    ["lora", *(pytest.param(f, marks=pytest.mark.slow) for f in ("whole", "native", "pissa", "olora", "bias", "two"))],
)
def test_the_reference_is_the_model_as_training_starts(trainer, callback, scored, form):
    base = load_base(TINY)
    if form == "whole":
        model = base.requires_grad_(True)
    elif form == "native":
        model = base
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(**lora_options()))
    elif form == "two":
        model = adapted(base)
        model.add_adapter("second", LoraConfig(**lora_options()))
        model.set_adapter("second")
    else:
        options = {"lora": {}, "bias": {"bias": "lora_only"}}.get(form, {"init_lora_weights": form})
        model = adapted(base, **options)
    measured, before, reference = started(trainer, callback, scored, model)
    torch.testing.assert_close(reference, before, rtol=0, atol=5e-6)
    assert measured.live.metrics["mia/reference_auroc"] > 0.55


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_copy_of_a_whole_model_that_trl_has_changed_stays_as_it_was(
    sft, callback, scored, member_texts, heldout_texts
):
    measured = callback()
    model = load_base(TINY).requires_grad_(True)
    rows = [rows_of("text", texts) for texts in (member_texts, heldout_texts)]
    made = sft(*rows, measured, model=model, peft=False, num_train_epochs=2, learning_rate=1e-3)
    made.evaluate()
    before = torch.as_tensor(scored(measured)["mia/loss"])
    made.train()
    torch.testing.assert_close(base_losses(scored, measured), before, rtol=0, atol=5e-6)
    assert measured.live.metrics["mia/reference_auroc"] > 0.55
    frozen = measured.live._run.session.subject.reference
    ids = torch.tensor([[1, 5, 7]])
    with torch.no_grad():
        assert torch.equal(frozen(input_ids=ids).logits, load_base(TINY)(input_ids=ids).logits)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_model_or_a_folder_can_be_the_reference(trainer, callback, scored):
    for reference in (load_base(TINY), TINY):
        model = load_base(TINY).requires_grad_(True)
        _, before, found = started(trainer, callback, scored, model, reference=reference)
        torch.testing.assert_close(found, before, rtol=0, atol=5e-6)


def test_a_reference_that_is_trained_itself_is_rejected(trainer, callback, lora):
    base = load_base(TINY)
    with pytest.raises(ConfigError, match="reference shares its weights with the measured model"):
        trainer(callback(reference=base), model=lora(base)).train()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_whole_model_that_goes_on_is_compared_with_where_it_came_from(trainer, callback, scored):
    settings = {"save_strategy": "epoch", "num_train_epochs": 2}
    first = callback()
    made = trainer(first, model=load_base(TINY).requires_grad_(True), **settings)
    made.train()
    expected = base_losses(scored, first)
    on = callback()
    made = trainer(on, model=load_base(TINY).requires_grad_(True), **settings)
    made.train(resume_from_checkpoint=f"{made.args.output_dir}/checkpoint-4")
    torch.testing.assert_close(base_losses(scored, on), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"is_deepspeed_enabled": True, "stage": 3}, "DeepSpeed ZeRO-3"),
        ({"is_fsdp_enabled": True}, "FSDP"),
        ({"is_deepspeed_enabled": True, "stage": 2}, None),
        ({}, None),
    ],
)
def test_weights_that_are_spread_over_devices_are_rejected_in_a_line(settings, named):
    plugin = types.SimpleNamespace(zero_stage=settings.get("stage", 0))
    state = types.SimpleNamespace(deepspeed_plugin=plugin if "stage" in settings else None)
    made = types.SimpleNamespace(
        accelerator=types.SimpleNamespace(state=state),
        is_deepspeed_enabled=settings.get("is_deepspeed_enabled", False),
        is_fsdp_enabled=settings.get("is_fsdp_enabled", False),
    )
    if named is None:
        check_whole(made)
        return
    with pytest.raises(ConfigError, match=f"{named} shards the weights over devices"):
        check_whole(made)
