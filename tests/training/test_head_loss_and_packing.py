"""The training loss against the model's own, of padded batches with a mask, and of plain cross entropy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)
from transformers.masking_utils import flash_attention_mask

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import Encoded, collate
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.training import head_loss as training_loss
from lit_mem.training import packing
from lit_mem.training.head_loss import head_loss
from lit_mem.training.packing import Packer, first_fit, keeps_texts_apart, laid_out
from lit_mem.types import Needs

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


def mistral(**more):
    """Each token sees the three before it only."""
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4, **more))


def bloom():
    """It takes no positions."""
    shape = {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    return BloomForCausalLM(BloomConfig(**shape, bos_token_id=1, eos_token_id=2, pad_token_id=0))


torch.manual_seed(1)
MIXED = mistral().eval()
MOMENTS = Needs(moments=True)


def texts(lengths, seed=3):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, n in enumerate(lengths):
        ids = torch.randint(3, 97, (n,), generator=generator)
        labels = ids.masked_fill(torch.rand(n, generator=generator) < 0.3, -100)  # prompts, and gaps too
        made.append(Encoded(ids, labels, i, True))
    return made


def own_loss(model, examples):
    batch = collate(examples)
    mask = (torch.arange(batch["input_ids"].shape[1]) < torch.tensor([[len(e.input_ids)] for e in examples])).long()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": mask, "labels": batch["labels"]}
    return model(**inputs, use_cache=False).loss


def tuned(model):
    wrapped = LoRA(targets=["all-linear"], init="gaussian").wrap(model).eval()
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return wrapped


def gradients(loss, model):
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


@pytest.mark.parametrize("build", [mistral, lambda: mistral(attn_implementation="eager"), bloom])
@pytest.mark.parametrize("lengths", [(19, 2, 12, 7, 3), (4, 30, 4, 5, 6, 4, 5), (9, 9, 9), (11,)])
def test_loss_and_gradient_are_the_models_own_of_a_padded_batch(build, lengths):
    torch.manual_seed(1)
    model = tuned(build())
    scorer, examples = TokenScorer(model), texts(lengths)
    mine, theirs = scorer.loss(collate(examples)), own_loss(model, examples)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-5)
    expected = gradients(theirs, model)
    for name, found in gradients(mine, model).items():
        assert expected[name].abs().max() > 0
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert scorer._packs == (build is not bloom)


def test_most_padding_is_not_computed():
    torch.manual_seed(1)
    model = tuned(mistral())
    scorer, lengths = TokenScorer(model), (30, 4, 5, 6, 4, 5)
    scorer.loss(collate(texts(lengths)))  # which tries out whether texts are kept apart
    computed = []
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_pre_hook(lambda _, inputs: computed.append(inputs[0].shape[:2].numel()))
    scorer.loss(collate(texts(lengths)))
    assert 0 < computed[0] <= sum(lengths) < 6 * 30


@given(st.lists(st.integers(2, 40), min_size=2, max_size=9), st.integers(0, 99))
@settings(deadline=None)
def test_a_score_does_not_depend_on_the_other_texts_of_its_row(lengths, seed):
    scorer, examples = TokenScorer(MIXED), texts(lengths, seed)
    found, needs = scorer(collate(examples), MOMENTS), MOMENTS
    for row, example in enumerate(examples):
        alone, n = scorer(collate([example]), needs), len(example.input_ids)
        for name in ("logprob", "mean", "std"):
            torch.testing.assert_close(getattr(found, name)[row, :n], getattr(alone, name)[0], rtol=1e-6, atol=1e-6)
        assert not found.mask[row, n:].any()


@pytest.mark.parametrize("lengths", [(30, 4, 5, 6, 4, 5), (9, 9, 9), (11,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kept_keys_and_values_are_those_of_each_text_alone_and_change_no_score(lengths, dtype):
    torch.manual_seed(1)
    model = tuned(LlamaForCausalLM(LlamaConfig(**SMALL)).to(dtype))
    scorer, batch = TokenScorer(model), collate(texts(lengths))
    wanted = frozenset(range(0, len(lengths), 2))
    found, plain = scorer(batch, Needs(moments=True, states=wanted | {99})), scorer(batch, MOMENTS)
    for name in ("logprob", "hit", "mean", "std"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    assert (found.states.keys(), plain.states) == (wanted, {})
    for i in wanted:
        with torch.no_grad():
            expected = model(input_ids=batch["input_ids"][i : i + 1, : lengths[i]], use_cache=True).past_key_values
        for (keys, values), layer in zip(found.states[i], expected.layers, strict=True):
            n = keys.shape[1]
            assert n == int(found.mask[i].nonzero().max())
            within = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.05}
            torch.testing.assert_close(keys, layer.keys[0, :, :n], **within)
            torch.testing.assert_close(values, layer.values[0, :, :n], **within)


@pytest.mark.parametrize("build", [mistral, bloom, lambda: mistral(attn_implementation="eager")])
def test_a_model_whose_cache_is_of_another_kind_keeps_nothing(build):
    scorer, batch = TokenScorer(build().eval()), collate(texts((30, 4, 5)))
    assert scorer(batch, Needs(states=frozenset({0, 1}))).states == {}


def test_scoring_computes_each_token_once():
    scorer, computed, lengths = TokenScorer(MIXED), [], (30, 4, 5, 6, 4, 5)
    batch = collate(texts(lengths))
    scorer(batch)  # runs the probe
    handle = MIXED.model.layers[0].register_forward_pre_hook(lambda _, inputs: computed.append(inputs[0].shape))
    scorer(batch)
    handle.remove()
    ((rows, width, _),) = computed
    assert rows * width <= sum(lengths) < batch["input_ids"].numel()


def by_positions(module, query, key, value, attention_mask, scaling, dropout=0.0, position_ids=None, **_):
    """As flash attention does in transformers: texts start where positions do, but only in a batch of one row."""
    starts = (position_ids[0] == 0).cumsum(0) if len(query) == 1 else torch.zeros(query.shape[2])
    visible = (starts[:, None] == starts) & torch.ones(len(starts), len(starts)).tril().bool()
    key, value = (t.repeat_interleave(module.num_key_value_groups, dim=1) for t in (key, value))
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


def test_a_kernel_that_takes_bounds_of_texts_gets_them_in_one_row(monkeypatch):
    AttentionInterface.register("by_positions", by_positions)
    AttentionMaskInterface.register("by_positions", flash_attention_mask)
    monkeypatch.setattr(packing, "_ONE_ROW", ("by_positions",))
    torch.manual_seed(1)
    model = tuned(LlamaForCausalLM(LlamaConfig(**SMALL)))
    lengths, computed = (4, 30, 4, 5, 6, 4, 5), []
    expected = TokenScorer(model)(collate(texts(lengths)))
    model.get_base_model().set_attn_implementation("by_positions")
    scorer = TokenScorer(model)
    model.get_base_model().model.layers[0].register_forward_pre_hook(lambda _, given: computed.append(given[0].shape))
    found = scorer(collate(texts(lengths)))
    assert scorer._packs
    assert computed[-1][0] == 1
    torch.testing.assert_close(found.logprob, expected.logprob, rtol=0, atol=2e-6)


class Leaks(nn.Module):
    """A backbone that ignores positions, and so lets a text see the one before it in its row."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids, position_ids=None, use_cache=False):
        return self.backbone(input_ids=input_ids, use_cache=use_cache)


def test_a_model_that_mixes_texts_of_a_row_is_found_out():
    torch.manual_seed(1)
    model = mistral().eval()
    with torch.no_grad():
        assert keeps_texts_apart(model.model, torch.device("cpu"))
        assert not keeps_texts_apart(Leaks(model.model), torch.device("cpu"))
        assert not keeps_texts_apart(bloom().eval().transformer, torch.device("cpu"))
        assert keeps_texts_apart(model.bfloat16().model, torch.device("cpu"))
        assert not keeps_texts_apart(Leaks(model.model), torch.device("cpu"))


LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@pytest.mark.slow
@given(LENGTHS, st.floats(0, 1e6), st.floats(1, 1e4))
@settings(max_examples=2 * settings.default.max_examples, deadline=None)
def test_every_text_is_in_one_row_and_packing_never_costs_more(lengths, token_cost, pair_cost):
    packer = Packer.__new__(Packer)
    packer.token_cost, packer.pair_cost = token_cost, pair_cost
    rows = packer.rows(lengths)
    assert sorted(i for row in rows for i in row) == [i for i, n in enumerate(lengths) if n]
    padded = [i for i, n in enumerate(lengths) if n]
    if len(rows) < len(padded):
        width = max(sum(lengths[i] for i in row) for row in rows)
        longest = max(lengths)
        cost = len(rows) * width * (token_cost + pair_cost * width)
        assert cost <= len(padded) * longest * (token_cost + pair_cost * longest / 2)


def test_rows_are_long_where_attention_is_cheap_and_short_where_it_is_not():
    lengths = [40, 20, 20, 10, 10, 10]
    packer = Packer.__new__(Packer)
    packer.token_cost, packer.pair_cost = 1e9, 1.0
    assert len(packer.rows(lengths)) == 1 or sum(lengths) == 40 * len(packer.rows(lengths))
    packer.token_cost, packer.pair_cost = 0.0, 1.0
    assert max(sum(lengths[i] for i in row) for row in packer.rows(lengths)) == 40


@given(LENGTHS, st.integers(0, 60))
@settings(deadline=None)
def test_no_row_is_wider_than_the_limit_and_no_two_fit_into_one(lengths, more):
    width = max(lengths) + more
    rows = first_fit(lengths, width)
    filled = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < n <= width for n in filled)
    assert all(a + b > width for i, a in enumerate(filled) for b in filled[:i])


@given(LENGTHS, st.integers(0, 30))
@settings(deadline=None)
def test_tokens_keep_their_positions_and_are_found_again(lengths, more):
    ids = torch.arange(len(lengths) * (max(lengths) + 2)).view(len(lengths), -1)
    packed, positions, place = laid_out(ids, lengths, first_fit(lengths, max(lengths) + more))
    for i, n in enumerate(lengths):
        assert packed.flatten()[place[i, :n]].tolist() == ids[i, :n].tolist()
        assert positions.flatten()[place[i, :n]].tolist() == list(range(n))
    used = {p for i, n in enumerate(lengths) for p in place[i, :n].tolist()}
    rest = [p for at, p in enumerate(positions.flatten().tolist()) if at not in used]
    assert not any(rest)


# -- the output layer --------------------------------------------------------------------------------------


def plain(hidden, target, head):
    return F.cross_entropy(head(hidden).float(), target, reduction="sum")


def case(n=13, vocabulary=50, scale=1.0, dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    head = nn.Linear(8, vocabulary, bias=bias, dtype=dtype)
    hidden = (torch.randn(n, 8) * scale).to(dtype).requires_grad_()
    return hidden, torch.randint(vocabulary, (n,)), head


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 100, 2**25])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_head_gives_the_loss_and_gradient_of_cross_entropy(
    monkeypatch, frozen, bias, chunk, dtype, tolerance, scale
):
    monkeypatch.setattr(training_loss, "_LOGITS_AT_ONCE", chunk)
    monkeypatch.setattr(training_loss, "_CPU_BLOCK", 150)
    hidden, target, head = case(scale=scale, dtype=dtype, bias=bias)
    head.requires_grad_(not frozen)
    wanted = [hidden, *([] if frozen else head.parameters())]
    mine, theirs = head_loss(hidden, target, head), plain(hidden, target, head)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=0)
    assert mine.dtype == torch.float32
    found, expected = (torch.autograd.grad(loss / 7, wanted) for loss in (mine, theirs))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def test_logits_far_apart_give_no_infinity():
    head = nn.Linear(1, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[0.0], [200.0], [-200.0]]))
    hidden = torch.ones(1, 1, requires_grad=True)
    loss = head_loss(hidden, torch.tensor([2]), head)
    assert loss.item() == 400.0
    assert torch.autograd.grad(loss, hidden)[0].item() == 400.0


def test_no_gradient_is_computed_where_none_is_wanted():
    hidden, target, head = case()
    head.requires_grad_(False)
    with torch.no_grad():
        assert not head_loss(hidden, target, head).requires_grad
    assert not head_loss(hidden.detach(), target, head).requires_grad
    torch.testing.assert_close(head_loss(hidden.detach(), target, head), plain(hidden, target, head).detach())


@pytest.mark.parametrize("frozen", [True, False])
def test_logits_are_not_kept_for_the_backward_pass(monkeypatch, frozen):
    monkeypatch.setattr(training_loss, "_LOGITS_AT_ONCE", 1000)

    def largest(loss):
        kept = [0]
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            loss(hidden, target, head)
        return max(kept)

    hidden, target, head = case(n=200, vocabulary=500)
    head.requires_grad_(not frozen)
    assert largest(plain) == 200 * 500
    assert largest(head_loss) <= 500 * 8  # the weights
