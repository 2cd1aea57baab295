"""The LightningModule: reference, checkpoints, train and eval mode."""

import pytest
import torch

from lit_mem.adapters import FullFineTuning, LoRA
from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, Perplexity
from lit_mem.errors import CheckpointError, ConfigError, ModelError
from lit_mem.models.reference_model import Setting
from lit_mem.models.scored import ScoredModel
from lit_mem.scoring.reference_scores import Reference


class Keep(MembershipInference):
    """Keeps the scores of the last pass."""

    def begin(self, subject):
        super().begin(subject)
        self.seen = []

    def observe(self, scores, batch):
        super().observe(scores, batch)
        self.seen.append(scores)


def scores_of(model, data, trainer, **kwargs):
    keep = Keep(plots=False)
    trainer([keep], **kwargs).fit(model, data())
    return keep


def test_adapter_off_and_a_frozen_copy_agree_to_the_last_bit(module, data, trainer):
    seen = []
    for kind in ("adapter_off", "copy"):
        torch.manual_seed(1)
        model = module(reference=Reference(kind))
        seen.append(scores_of(model, data, trainer, check_val_every_n_epoch=2, num_sanity_val_steps=0).seen)
        assert (model._scored.reference.scorer is not None) == (kind == "copy")
        # After two epochs the tuned model differs, or the comparison would prove nothing.
        assert not torch.equal(seen[-1][0].logprob, seen[-1][0].reference)
    for off, copy in zip(*seen, strict=True):
        assert torch.equal(off.reference, copy.reference)
        assert torch.equal(off.logprob, copy.logprob)


@pytest.mark.slow
def test_the_reference_is_the_base_before_any_training(module, data, trainer, base):
    keep = scores_of(module(), data, trainer, max_epochs=1, num_sanity_val_steps=0)
    for scores, batch in zip(keep.seen, [b for loader in _loaders(data, module) for b in loader], strict=True):
        for row in range(len(batch["input_ids"])):
            n = int((batch["labels"][row] != -100).sum()) + 1
            ids = batch["input_ids"][row : row + 1, :n]
            with torch.no_grad():
                nll = base(input_ids=ids, labels=ids).loss
            torch.testing.assert_close(-scores.reference[row].sum() / (n - 1), nll, rtol=1e-4, atol=1e-5)


def _loaders(data, module):
    dm = data(tokenizer="asset:tiny_llama")
    dm.setup("fit")
    return dm.val_dataloader()


def test_reference_attack_starts_at_exactly_one_half(module, data, trainer):
    keep = Keep(plots=False)
    t = trainer([keep], max_epochs=0)
    t.validate(module(), data(), verbose=False)
    assert float(t.callback_metrics["mia/reference_auroc"]) == 0.5
    assert all(torch.equal(s.logprob, s.reference) for s in keep.seen)


@pytest.mark.slow
def test_before_the_first_step_one_pass_gives_the_scores_of_both_models(module, data, trainer, monkeypatch):
    """They are bit-identical to those of a pass of the reference."""
    prompted = []
    score_reference = ScoredModel.score_reference
    monkeypatch.setattr(ScoredModel, "score_reference", lambda self, batch, setting: prompted.append(batch))
    model, keep = module(), Keep(plots=False)
    trainer([keep]).validate(model, data(), verbose=False)
    assert not prompted
    assert keep.seen
    for scores in keep.seen:
        really = score_reference(model._scored, scores.batch, Setting(model.device))
        assert torch.equal(scores.reference, really.logprob)
        assert torch.equal(scores.reference_hit, really.hit)


def test_an_adapter_that_was_trained_before_gets_a_pass_of_the_reference(module, data, trainer, tmp_path):
    model = module()
    model.configure_model()
    assert model.tuned_is_reference()
    # The difference may be too small to show in a logit, so it is not inferred.
    next(p for name, p in model.named_parameters() if "lora_B" in name).data[0, 0] = 1e-30
    assert not model.tuned_is_reference()
    model.language_model.save_pretrained(tmp_path)
    again = module(adapter_path=str(tmp_path))
    again.configure_model()
    assert not again.tuned_is_reference()


@pytest.mark.parametrize("reference", [Reference("copy"), Reference(model_id="asset:tiny_llama")])
def test_a_reference_of_its_own_is_never_taken_for_the_tuned_model(module, reference):
    model = module(reference=reference)
    model.configure_model()
    assert not model.tuned_is_reference()


def test_after_a_step_the_tuned_model_is_never_taken_for_the_reference(module, data, trainer):
    model = module(lr=0.0)
    trainer([Perplexity()], max_epochs=1, num_sanity_val_steps=0).fit(model, data())
    assert not any(p.any() for name, p in model.named_parameters() if "lora_B" in name)
    assert not model.tuned_is_reference()


def test_the_reference_is_scored_once_for_each_example(module, data, trainer):
    model = module()
    scores_of(model, data, trainer)
    assert model.reference_cache.computed == 24 - 4 + 20  # as many members as held out, and the held out
    assert len(model.reference_cache) == model.reference_cache.computed


@pytest.mark.slow
def test_without_a_callback_that_reads_it_the_reference_is_not_scored(module, data, trainer):
    model = module()
    trainer([Perplexity()], max_epochs=1).fit(model, data())
    assert model.reference_cache.computed == 0


@pytest.mark.slow
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_initialisations_that_rewrite_the_base_get_a_copy(module, init):
    model = module(adapter=LoRA(rank=4, targets=["v"], init=init))
    model.configure_model()
    assert model._scored.reference.scorer is not None
    with pytest.raises(ModelError, match=r"set model\.reference\.kind to copy"):
        module(adapter=LoRA(rank=4, targets=["v"], init=init), reference=Reference("adapter_off")).configure_model()


@pytest.mark.slow
def test_full_fine_tuning_is_measured_against_a_copy(module, data, trainer):
    model = module(adapter=FullFineTuning(), lr=1e-3)
    t = trainer([MembershipInference(plots=False)], check_val_every_n_epoch=2, num_sanity_val_steps=0)
    t.fit(model, data())
    assert model._scored.reference.scorer is not None
    assert not any("reference" in name for name, _ in model.named_parameters())
    assert float(t.callback_metrics["mia/reference_auroc"]) > 0.5


def test_another_reference_model_is_a_copy(module):
    model = module(reference=Reference(model_id="asset:tiny_llama"))
    model.configure_model()
    assert model._scored.reference.scorer is not None
    with pytest.raises(ConfigError, match="are both set"):
        module(reference=Reference("adapter_off", "asset:tiny_llama"))


def test_frozen_adapter_weights_stay_frozen_after_a_reference_pass(module, batch):
    model = module()
    model.configure_model()
    frozen = [n for n, p in model.named_parameters() if "lora_A" in n]
    for name, p in model.named_parameters():
        p.requires_grad_("lora_B" in name)
    with model.reference_context():
        pass
    after = dict(model.named_parameters())
    assert frozen
    assert not any(after[name].requires_grad for name in frozen)


def test_the_model_is_trained_in_train_mode_and_scored_in_eval_mode(module, data, trainer):
    seen = {}

    class Look(MembershipInference):
        def observe(self, scores, batch):
            super().observe(scores, batch)
            seen["scoring"] = {m.training for m in model.language_model.modules()}

        def on_train_batch_end(self, *args):
            seen["training"] = {m.training for m in model.language_model.modules()}

    model = module()
    trainer([Look(plots=False)], max_epochs=1, num_sanity_val_steps=0).fit(model, data())
    assert seen == {"scoring": {False}, "training": {True}}


@pytest.mark.slow
def test_gradient_checkpointing_is_on_when_set_and_changes_no_weight(module, data, trainer, trained):
    weights, runs = [], []
    for on in (False, True):
        torch.manual_seed(1)
        model = module(gradient_checkpointing=on, dropout=0.0)
        model.configure_model()
        counted = []
        layer = model.language_model.get_base_model().model.layers[0].self_attn
        # Only in training: whether texts may share a row is tested in eval mode.
        layer.register_forward_pre_hook(lambda m, *_, counted=counted: counted.append(1) if m.training else None)
        trainer([], max_epochs=1, limit_val_batches=0).fit(model, data())
        weights.append(trained(model))
        runs.append(len(counted))
    assert runs[1] == 2 * runs[0] > 0  # each layer runs again in the backward pass
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(module, data, trainer, tmp_path_factory):
    """A model after an epoch, and its checkpoint; tests do not change them."""
    folder = tmp_path_factory.mktemp("checkpoint")
    keep = MemorizationCheckpoint(dirpath=str(folder))
    model = module()
    trainer([keep], max_epochs=1, num_sanity_val_steps=0).fit(model, data())
    return model, folder / "last.ckpt"


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_checkpoint_holds_trained_weights_only_and_loads_back(module, data, trainer, trained, checkpoint):
    model, path = checkpoint
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"].keys() == trained(model).keys()
    again = module()
    t = trainer([Perplexity()])
    t.validate(again, data(), ckpt_path=str(path), verbose=False, weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(trained(model).values(), trained(again).values(), strict=True))


def test_the_exported_adapter_is_a_peft_adapter(checkpoint, base, tokenizer, texts):
    from peft import PeftModel

    model, path = checkpoint
    loaded = PeftModel.from_pretrained(base, path.parent / "last-adapter").eval()
    ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model.language_model.eval()(input_ids=ids).logits)


@pytest.mark.slow
def test_an_adapter_from_elsewhere_is_the_start_and_can_be_audited(module, data, trainer, trained, checkpoint):
    model, path = checkpoint
    again = module(adapter_path=str(path.parent / "last-adapter"))
    t = trainer([MembershipInference(plots=False)])
    t.validate(again, data(), verbose=False)
    assert float(t.callback_metrics["mia/reference_auroc"]) != 0.5
    assert all(torch.equal(a, b) for a, b in zip(trained(model).values(), trained(again).values(), strict=True))


def test_merging_gives_the_same_model(checkpoint, tokenizer, texts):
    model, path = checkpoint
    merged = model.merged(str(path.parent / "last-adapter")).eval()
    ids = tokenizer(texts[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = model.language_model.eval()(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_another_rank_target_or_base_is_rejected(module, data, trainer, checkpoint, tmp_path):
    _, path = checkpoint
    for other, message in ((module(rank=8), "check model.adapter.rank"), (module(targets=["q"]), "targets and layers")):
        with pytest.raises(CheckpointError, match=message):
            trainer([]).validate(other, data(), ckpt_path=str(path), verbose=False, weights_only=True)
    changed = torch.load(path, weights_only=True)
    changed["lit_mem"]["fingerprint"] = {"light": "0" * 16, "full": "1" * 16}
    torch.save(changed, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="belongs to the base model"):
        trainer([]).validate(module(), data(), ckpt_path=str(tmp_path / "other.ckpt"), verbose=False, weights_only=True)
    del changed["lit_mem"]
    torch.save(changed, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="not written by lit_mem"):
        trainer([]).validate(
            module(), data(), ckpt_path=str(tmp_path / "foreign.ckpt"), verbose=False, weights_only=True
        )


@pytest.mark.slow
def test_the_learning_rate_follows_the_schedule(module, data, trainer):
    rates = []

    class Look(Perplexity):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer([Look()], limit_val_batches=0).fit(module(lr=0.01, warmup_fraction=0.25), data())
    assert len(rates) == 8
    assert rates[:3] == pytest.approx([0.0, 0.005, 0.01])
    assert rates[-1] == pytest.approx(0.01 / 6)


# -- the cost of training ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gradient_checkpointing_keeps_less_for_the_backward_pass_and_gives_the_same_gradients(module, batch):
    kept, losses, gradients = [], [], []
    for on in (False, True):
        torch.manual_seed(1)
        model = module(gradient_checkpointing=on, dropout=0.0)
        model.configure_model()
        parameters = [p for p in model.parameters() if p.requires_grad]
        with torch.no_grad():
            for p in parameters:
                p.normal_(std=0.05, generator=torch.Generator().manual_seed(p.numel()))
        own = {p.data_ptr() for p in model.parameters()}
        sizes = {}

        def note(tensor, own=own, sizes=sizes):
            if tensor.untyped_storage().data_ptr() not in own:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model._scorer.loss(batch)
        kept.append(sum(sizes.values()))
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, parameters))
    assert kept[1] < kept[0] / 2
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_fused_optimizer_trains_the_same_model(module, data, trainer, trained, clip):
    weights = []
    for fused in (False, True):
        torch.manual_seed(1)
        model = module(dropout=0.0)
        model.optimizer = lambda parameters, fused=fused: torch.optim.AdamW(parameters, lr=5e-3, fused=fused)
        t = trainer([], max_epochs=2, limit_val_batches=0, num_sanity_val_steps=0, gradient_clip_val=clip)
        t.fit(model, data())
        assert bool(t.optimizers[0].param_groups[0]["fused"]) == fused
        weights.append(trained(model))
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("precision", "width"),
    [("bf16-mixed", torch.float32), ("bf16-true", torch.bfloat16)],
)
def test_training_in_bfloat16_loses_as_much_as_in_float32(module, data, trainer, trained, precision, width):
    losses = []

    class Look(Perplexity):
        def on_train_batch_end(self, trainer, pl_module, outputs, *args):
            losses.append(float(outputs["loss"]))

    for each in ("32-true", precision):
        torch.manual_seed(1)
        model = module(dropout=0.0)
        trainer([Look()], max_epochs=3, limit_val_batches=0, precision=each).fit(model, data())
    full, half = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    assert {p.dtype for p in trained(model).values()} == {width}
    assert full != half
    assert half == pytest.approx(full, rel=0.02)
    assert full[-1] < full[0]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_grouped_run_is_resumed_in_its_own_order(module, data, trainer, trained, tmp_path):
    def fit(folder, epochs, resume=None):
        torch.manual_seed(1)
        model, keep = module(), MemorizationCheckpoint(dirpath=str(tmp_path / folder))
        seen = []

        class Look(Perplexity):
            def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
                seen.append(batch["example_id"].tolist())

        # A constant rate, since the shorter run would have another schedule.
        model.lr_schedule = "constant"
        path = None if resume is None else str(tmp_path / resume / "last.ckpt")
        t = trainer([keep, Look()], max_epochs=epochs)
        t.fit(model, data(group_by_length=True), ckpt_path=path, weights_only=True)
        return seen, trained(model)

    whole, expected = fit("whole", 4)
    first, _ = fit("first", 2)
    rest, found = fit("rest", 4, resume="first")
    assert first + rest == whole
    assert len(rest) == 8
    assert all(torch.equal(found[name], expected[name]) for name in expected)
