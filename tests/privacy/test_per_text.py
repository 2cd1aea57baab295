"""Gradients text by text against a loop with one text at a time, and rejection of models without them."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import collate
from lit_mem.errors import ModelError
from lit_mem.privacy.per_text import PerTextGradients, check_model

LENGTHS = (19, 2, 12, 7, 3)


def flat(gradients):
    return torch.cat([g.flatten(1) for g in gradients], dim=1)


def assert_same(found, expected, tolerance=3e-6):
    """To rounding in float32 by default, of numbers up to the largest."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1, expected.abs().max())


def recorded(model, losses, texts):
    recorder = PerTextGradients(model)
    with recorder.recording():
        found = recorder.of(losses(collate(texts)))
    recorder.remove()
    return flat(found)


@pytest.mark.parametrize("name", ["sdpa", "eager", "tied", "gpt2"])
@pytest.mark.parametrize("targets", [("all-linear",), ("first",)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 5e-7)])
def test_gradients_are_those_of_one_text_at_a_time(
    name, targets, dtype, tolerance, tuned, mean_losses, some_texts, one_at_a_time
):
    if targets == ("first",):
        targets = ("c_attn",) if name == "gpt2" else ("v", "q")
    model, texts = tuned(name, targets).to(dtype), some_texts(LENGTHS)
    expected = one_at_a_time(model, texts)
    found = recorded(model, mean_losses(model), texts)
    assert expected.abs().amax(dim=1).min() > 0.01
    assert_same(found, expected, tolerance)


def test_gradients_do_not_depend_on_the_batch(tuned, mean_losses, some_texts):
    model, texts = tuned(), some_texts(LENGTHS)
    losses = mean_losses(model)
    together = recorded(model, losses, texts)
    apart = torch.cat([recorded(model, losses, texts[start : start + 2]) for start in (0, 2, 4)])
    assert_same(together, apart)


def test_reentrant_checkpointing_gives_the_same(tuned, mean_losses, some_texts, one_at_a_time):
    model, texts = tuned(), some_texts(LENGTHS)
    expected = one_at_a_time(model, texts)
    model.enable_input_require_grads()
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": True})
    found = recorded(model, mean_losses(model), texts)
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_training_under_the_hooks_is_plain_training(tuned, mean_losses, some_texts):
    """Opacus issue 820 reports adapters that are silently wrong. Without noise and with nothing to clip, the mean of
    the texts' gradients trains the adapter that plain autograd trains."""
    trained = []
    for hooked in (False, True):
        model, texts = tuned(), some_texts((9, 5, 7, 6))
        base = {k: v.clone() for k, v in model.state_dict().items() if "lora_" not in k}
        losses = mean_losses(model)
        wanted = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(wanted, lr=1e-2)
        recorder = PerTextGradients(model) if hooked else None
        for step in range(30):
            batch = collate([texts[step % 4], texts[(step + 1) % 4]])
            if recorder is None:
                optimizer.zero_grad()
                losses(batch).mean().backward()
            else:
                with recorder.recording():
                    gradients = recorder.of(losses(batch))
                for parameter, gradient in zip(wanted, gradients, strict=True):
                    parameter.grad = gradient.mean(dim=0)
            optimizer.step()
        assert all(torch.equal(v, base[k]) for k, v in model.state_dict().items() if k in base)
        trained.append(torch.cat([p.detach().flatten() for p in wanted]))
    assert (trained[0] - trained[1]).abs().max() < 1e-4
    assert (trained[0] - trained[1]).norm() < 1e-5 * trained[0].norm()


def test_nothing_is_left_on_the_model(tuned, mean_losses, some_texts):
    model = tuned()
    keys = list(model.state_dict())
    before = {id(m): set(vars(m)) for m in model.modules()}
    recorder = PerTextGradients(model)
    with recorder.recording():
        recorder.of(mean_losses(model)(collate(some_texts((5, 4)))))
    assert list(model.state_dict()) == keys
    recorder.remove()
    assert list(model.state_dict()) == keys
    assert all(not m._forward_hooks and not m._backward_hooks for m in model.modules())
    assert not any(hasattr(p, "grad_sample") or hasattr(p, "_forward_counter") for p in model.parameters())
    assert {
        k: v - before[k] for k, v in ((id(m), set(vars(m))) for m in model.modules()) if v - before[k] - {"activations"}
    } == {}


def test_a_pass_that_was_broken_off_leaves_nothing(tuned, mean_losses, some_texts, one_at_a_time):
    model, texts = tuned(), some_texts((5, 4))
    expected = one_at_a_time(model, texts)
    recorder = PerTextGradients(model)
    with recorder.recording():
        mean_losses(model)(collate(texts))  # its backward pass never came
    for made in (recorder, PerTextGradients(model)):  # nor was the first one ever removed
        with made.recording():
            found = flat(made.of(mean_losses(model)(collate(texts))))
        assert_same(found, expected)


def test_what_others_ask_of_the_model_in_between_changes_nothing(tuned, mean_losses, some_texts, one_at_a_time):
    """Scoring and generation without gradients, and gradients for an attack, also amid a step."""
    model, texts = tuned(), some_texts(LENGTHS)
    losses, expected = mean_losses(model), one_at_a_time(model, texts)
    recorder = PerTextGradients(model)
    for inside in (False, True):
        with recorder.recording() if inside else nullcontext():
            model.eval()
            with torch.no_grad():
                losses(collate(texts[:2]))
                model.generate(input_ids=texts[0].input_ids[None], max_new_tokens=2, do_sample=False)
            if not inside:
                torch.autograd.grad(losses(collate(texts[:1])).sum(), recorder.parameters)
                model.train()
                torch.autograd.grad(losses(collate(texts[:1])).sum(), recorder.parameters)
            model.train()
            with recorder.recording() if not inside else nullcontext():
                assert_same(flat(recorder.of(losses(collate(texts)))), expected)


def test_an_ordinary_gradient_is_left_nowhere(tuned, mean_losses, some_texts):
    """It is neither clipped nor noisy."""
    model = tuned()
    recorded(model, mean_losses(model), some_texts(LENGTHS))
    assert all(p.grad is None for p in model.parameters())


# -- the check at the start ---------------------------------------------------------------------------------


def by_ids(model, losses):
    from lit_mem.scoring.scorer import TokenScorer

    scorer = TokenScorer(model)

    def of(ids, labels):
        total, count = scorer.text_losses({"input_ids": ids, "labels": labels})
        return losses(total, count)

    return of


def test_the_check_passes_and_leaves_everything_as_it_was(tuned):
    model = tuned()
    state = torch.get_rng_state()
    flags = [m.training for m in model.modules()]
    recorder = PerTextGradients(model)
    recorder.check(by_ids(model, lambda total, count: total / count))
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None and p.grad_sample is None for p in recorder.parameters)


def test_the_check_finds_a_loss_that_is_averaged_over_the_batchs_tokens(tuned):
    model = tuned()
    with pytest.raises(ModelError, match="the gradient of a text in a batch is not that of the text alone"):
        PerTextGradients(model).check(by_ids(model, lambda total, count: total / count.sum()))


class Mixed(nn.Module):
    """A layer that lets every text see the mean over the batch, as batch statistics do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x - x.mean(dim=0, keepdim=True))


def test_the_check_finds_a_model_that_mixes_texts(tuned):
    model = tuned()
    layer = model.get_base_model().model.layers[1]
    layer.mlp.act_fn = Mixed(layer.mlp.act_fn)
    with pytest.raises(ModelError, match="not that of the text alone"):
        PerTextGradients(model).check(by_ids(model, lambda total, count: total / count))


class Flattened(nn.Module):
    """A layer that reads the tokens of all texts as one list, as experts do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flatten(0, 1)).view(x.shape)


def test_the_check_finds_a_layer_that_does_not_keep_texts_apart(tuned):
    model = tuned()
    layer = model.get_base_model().model.layers[1]
    layer.mlp = Flattened(layer.mlp)
    with pytest.raises(ModelError, match="it does not process texts independently"):
        PerTextGradients(model).check(by_ids(model, lambda total, count: total / count))


# -- rejections ---------------------------------------------------------------------------------------------


def with_embeddings(base):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(base, LoraConfig(target_modules=["embed_tokens"], r=4))


def with_head(base):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(base, LoraConfig(target_modules=["lm_head", "v_proj"], r=4))


def with_trained_head(base):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(base, LoraConfig(target_modules=["v_proj"], modules_to_save=["lm_head"], r=4))


def with_checkpointing(base):
    model = LoRA(rank=4, targets=["v"]).wrap(base)
    base.activation_checkpointing_enable({"use_reentrant": False})
    return model


def with_batch_norm(base):
    model = LoRA(rank=4, targets=["v"]).wrap(base)
    base.model.layers[0].mlp.extra = nn.BatchNorm1d(4).requires_grad_(False)
    return model


def test_positions_that_depend_on_the_longest_text_so_far_are_rejected():
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    scaling = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    base = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, rope_parameters=scaling)).requires_grad_(False)
    with pytest.raises(ModelError, match=r"rotary_emb scales positions by the longest text .*rope_type dynamic"):
        check_model(LoRA(rank=4, targets=["v"], dropout=0.0).wrap(base))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda base: LoRA(rank=4, targets=["v"], dora=True).wrap(base), r"lora_magnitude_vector.* is trained"),
        (with_embeddings, r"lora_embedding_A.* is trained"),
        (with_head, r"lm_head\.lora_A.* is part of the output layer"),
        (with_trained_head, r"lm_head.* is part of the output layer"),
        (with_checkpointing, "gradient checkpointing is not reentrant"),
        (with_batch_norm, "mlp.extra uses statistics over all texts of a batch"),
        (lambda base: base.requires_grad_(True), r"embed_tokens\.weight is trained"),
        (lambda base: base.requires_grad_(False), "no parameter of the model is trained"),
    ],
    ids=["dora", "embeddings", "head", "trained head", "checkpointing", "batch norm", "everything", "nothing"],
)  # fmt: skip
def test_models_without_a_gradient_of_each_text_are_rejected(make, message, fresh_llama):
    model = make(fresh_llama.requires_grad_(False))
    with pytest.raises(ModelError, match=message):
        check_model(model)
    with pytest.raises(ModelError, match=message):
        PerTextGradients(model)
