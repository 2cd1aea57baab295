"""Each adapter family: what it trains, that disabling it gives the base, that scores equal plain calls."""

import pytest
import torch

from lit_mem.adapters import IA3, HeadOnly, LoRA, Peft, PromptTuning
from lit_mem.adapters.base import adapter_off, gives_base_back
from lit_mem.errors import ConfigError, ModelError
from lit_mem.generation.decoding import decode
from lit_mem.generation.virtual_tokens import VirtualTokens
from lit_mem.scoring.scorer import TokenScorer

# The bundled model's output layer is its embedding; nothing is merged or converted here.
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


def changed(model):
    """As after training, far from the initialisation."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def loss_alone(model, example):
    ids, labels = example.input_ids[None], example.labels[None]
    with torch.no_grad():
        return float(model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss)


@pytest.mark.parametrize("adapter", [IA3(), PromptTuning(tokens=5), LoRA(rank=2)], ids=lambda a: type(a).__name__)
def test_off_it_is_the_base_and_on_it_is_not(base, batch, adapter):
    ids = batch["input_ids"]
    with torch.no_grad():
        expected = base(input_ids=ids, use_cache=False).logits
        model = changed(adapter.wrap(base))
        tuned = model(input_ids=ids, use_cache=False).logits[:, -ids.shape[1] :]
        with adapter_off(model) as off:
            assert torch.equal(off(input_ids=ids, use_cache=False).logits, expected)
        assert not torch.allclose(tuned, expected, atol=1e-2)
        assert torch.equal(model(input_ids=ids, use_cache=False).logits[:, -ids.shape[1] :], tuned)
    assert gives_base_back(model)


@pytest.mark.parametrize(
    "adapter", [IA3(), PromptTuning(tokens=5), HeadOnly()], ids=lambda adapter: type(adapter).__name__
)
def test_scores_are_those_of_a_call_for_each_text(base, examples, batch, adapter):
    model = changed(adapter.wrap(base))
    scores = TokenScorer(model)(batch)
    for i, example in enumerate(examples[:8]):
        expected = loss_alone(model, example)
        n = int((example.labels != -100).sum())
        assert float(-scores.logprob[i].sum()) / n == pytest.approx(expected, rel=1e-4)


def test_the_head_gets_weights_of_its_own(base, batch):
    embeddings = base.get_input_embeddings().weight.detach().clone()
    assert base.get_output_embeddings().weight is base.get_input_embeddings().weight  # or this shows nothing
    model = HeadOnly().wrap(base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"lm_head.weight"}
    model(input_ids=batch["input_ids"], labels=batch["labels"]).loss.backward()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    optimizer.step()
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    assert not torch.equal(model.get_output_embeddings().weight, embeddings)
    assert not gives_base_back(model)


@pytest.mark.parametrize("targets", [["q"], ["k"], ["v", "o"], ["all-linear"]])
@pytest.mark.parametrize("layers", [None, [0, 2]])
def test_lora_of_a_size_is_the_largest_that_fits(base, targets, layers):
    budget = 20_000
    model = LoRA(parameters=budget, targets=targets, layers=layers).wrap(base)
    rank = model.peft_config["default"].r
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained <= budget < trained / rank * (rank + 1)
    assert model.peft_config["default"].lora_alpha == 2 * rank


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"parameters": 100}, "parameters is 100; expected at least 1792"),
        ({"parameters": 10**6, "targets": ["v"]}, r"parameters is 1000000: rank 1302; expected at most 64"),
        ({"rank": 65, "targets": ["v"]}, "rank is 65; expected at most 64"),
    ],
)
def test_lora_of_an_impossible_size(base, options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        LoRA(**options).wrap(base)


def test_ia3_of_unknown_matrices(base):
    with pytest.raises(ConfigError, match="'c_attn', which this model does not have"):
        IA3(targets=["c_attn"]).wrap(base)


def test_prompt_tuning_needs_a_token():
    with pytest.raises(ConfigError, match="tokens is 0; expected at least 1"):
        PromptTuning(tokens=0)


# -- continuations after virtual tokens --------------------------------------------------------------------


def greedy(model, prompt, length):
    """Token by token, each from a pass over all tokens before it."""
    ids = prompt.clone()
    with torch.no_grad():
        for _ in range(length):
            logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
            ids = torch.cat([ids, logits[0, -1].argmax()[None]])
    return ids[len(prompt) :].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "adapter",
    [
        PromptTuning(tokens=5),
        *(Peft(name, options={"num_virtual_tokens": 5}) for name in ("prefix_tuning", "cartridge")),
    ],
    ids=lambda a: getattr(a, "peft_type", "PROMPT_TUNING"),
)
def test_continuations_are_those_of_plain_calls_with_virtual_tokens_and_without(adapter, base, examples):
    cuts = [9, 3, 1, 20, 12, 5, 30, 2]
    prompts = [example.input_ids[:cut] for example, cut in zip(examples[8:], cuts, strict=False)]
    lengths = [7, 5, 9, 3, 8, 9, 4, 6]
    plain = [greedy(base, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]
    model = changed(adapter.wrap(base))
    found = decode(model, prompts, lengths, eos=None, token_budget=120)
    expected = [greedy(model, prompt, n) for prompt, n in zip(prompts, lengths, strict=True)]
    assert [each.ids.tolist() for each in found] == expected
    assert expected != plain
    with adapter_off(model) as off:
        found = decode(off, prompts, lengths, eos=None, token_budget=120)
    assert [each.ids.tolist() for each in found] == plain


def test_a_prompt_without_vectors_is_rejected(base):
    import peft

    ids = {"cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2]}
    with pytest.raises(ModelError, match="continuations of a model with CPT are not supported"):
        VirtualTokens.of(peft.get_peft_model(base, peft.CPTConfig(task_type="CAUSAL_LM", **ids)))
