"""Training is bit-identical with and without the callback, and the trainer's other state is unchanged."""

import random

import numpy as np
import pytest
import torch

from lit_mem.models.base_models import load_base
from tests.hf.conftest import TINY

FORMS = {
    "evaluations": {},
    "steps": {"every_n_steps": 2, "eval_strategy": "no"},
    "resumed": {"resumed": True, "save_strategy": "epoch", "num_train_epochs": 2},
    "best": {"load_best_model_at_end": True, "save_strategy": "epoch", "num_train_epochs": 2},
    "checkpointing": {"activation_checkpointing": True},
    "bf16": {"bf16": True},
    "whole": {"whole": True, "gradient_accumulation_steps": 2},
    "workers": {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "num_train_epochs": 2},
    "generation": {"suite": "standard", "eval_on_start": True},
}


def losses(trainer):
    kept = ("loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy", "num_tokens", "eval_loss", "step")
    kept += tuple(f"eval_{name}" for name in ("entropy", "mean_token_accuracy", "num_tokens"))
    rows = [{k: v for k, v in row.items() if k in kept} for row in trainer.state.log_history]
    return [row for row in rows if set(row) - {"step"}]


def flags(model):
    return [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", [n if n == "evaluations" else pytest.param(n, marks=pytest.mark.slow) for n in FORMS])
def test_the_same_with_and_without_it(trainer, callback, lora, tmp_path, form):
    settings = dict(FORMS[form])
    options = {name: settings.pop(name) for name in ("every_n_steps", "suite") if name in settings}
    whole, resumed = settings.pop("whole", False), settings.pop("resumed", False)

    def trained(name, *callbacks):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        model = load_base(TINY).requires_grad_(True) if whole else lora()
        made = trainer(*callbacks, model=model, output_dir=str(tmp_path / name), **settings)
        made.train(resume_from_checkpoint=str(tmp_path / name / "checkpoint-4") if resumed else None)
        drawn = torch.rand(1).item(), random.random(), np.random.rand()
        return made, {n: p.detach().clone() for n, p in model.named_parameters()}, drawn

    if resumed:
        for name in ("plain", "measured"):
            trainer(*([callback()] * (name == "measured")), output_dir=str(tmp_path / name), **settings).train()
    plain, weights, drawn = trained("plain")
    measured = callback(**options)
    watched, others, drawn_too = trained("measured", measured)
    assert measured.live.metrics["mia/reference_auroc"] > 0.5  # it was measured
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert losses(plain) == losses(watched)
    assert flags(plain.model) == flags(watched.model)
    assert drawn == drawn_too
    assert len(plain.accelerator._dataloaders) == len(watched.accelerator._dataloaders)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("every", [1, pytest.param(None, marks=pytest.mark.slow)])
def test_the_metrics_of_trl_stay_the_same(sft, callback, member_texts, heldout_texts, every):
    rows = [[{"text": text} for text in texts] for texts in (member_texts, heldout_texts)]
    found = []
    for callbacks in ([], [callback(every_n_steps=every)]):
        made = sft(*rows, *callbacks, num_train_epochs=2, logging_steps=3)
        made.train()
        found.append((losses(made), [p.detach().clone() for p in made.model.parameters() if p.requires_grad]))
    assert found[0][0] == found[1][0]
    assert any("mean_token_accuracy" in row for row in found[0][0])
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.slow
def test_frozen_weights_of_the_adapter_stay_frozen(trainer, callback, lora):
    model = lora()
    for name, parameter in model.named_parameters():
        if "layers.0." in name:
            parameter.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    trainer(callback(), model=model, max_steps=1).train()
    assert [p.requires_grad for p in model.parameters()] == before
