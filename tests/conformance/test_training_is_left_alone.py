"""State that measuring must not change, as it would change later training."""

import torch

from lit_mem.guards import evaluation_mode


def flags(model):
    return [m.training for m in model.modules()]


def mixed(model):
    """In training mode, except for a part that is frozen in eval mode."""
    model.train()
    next(m for m in model.modules() if "RMSNorm" in type(m).__name__).eval()
    return flags(model)


def test_every_submodule_gets_its_own_mode_back(tuned):
    """analysing_pii_leakage sets only the root's flag: dropout stays off in all later training.

    `model.train(mode)`, the usual way, errs the other way: it enables training mode in parts frozen in eval mode.
    """
    before = mixed(tuned)
    mode = tuned.training
    tuned.eval()
    tuned.training = mode
    assert not any(flags(tuned)[1:])
    tuned.train(mode)
    assert flags(tuned) != before
    assert mixed(tuned) == before
    with evaluation_mode(tuned):
        assert not any(flags(tuned))
    assert flags(tuned) == before


def test_asking_the_reference_leaves_modes_and_trained_weights_as_they_were(module, batch):
    model = module()
    model.configure_model()
    before = mixed(model.language_model)
    trained = [p.requires_grad for p in model.language_model.parameters()]
    with model.reference_context() as reference, torch.no_grad():
        assert not any(flags(reference))
        reference(input_ids=batch["input_ids"])
    assert flags(model.language_model) == before
    assert [p.requires_grad for p in model.language_model.parameters()] == trained
    assert any(trained)
