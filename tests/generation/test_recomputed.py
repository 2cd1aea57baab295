"""Decoding of models without a key-value cache, or with an unusual one, compared with `generate(use_cache=False)`."""

import pytest
import torch
import transformers

from lit_mem.generation.decoding import decode
from lit_mem.generation.kv_cache import CACHE_OPTION, cache_option
from lit_mem.generation.recomputed import RecomputedRows
from lit_mem.generation.rows import begin
from lit_mem.types import Sampling

SIZES = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2}
MORE = SIZES | {
    "pad_token_id": 0, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
TWO_KINDS = ["sliding_attention", "full_attention"]
FAMILIES = {
    "mamba": lambda: transformers.MambaConfig(**SIZES, state_size=8, pad_token_id=0),
    "rwkv": lambda: transformers.RwkvConfig(**SIZES),
    "recurrent_gemma": lambda: transformers.RecurrentGemmaConfig(
        **{**MORE, "num_hidden_layers": 3}, head_dim=16, lru_width=64, attention_window_size=16
    ),
    "falcon_h1": lambda: transformers.FalconH1Config(
        **MORE, mamba_d_ssm=64, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_chunk_size=16
    ),
    "lfm2": lambda: transformers.Lfm2Config(**MORE, layer_types=["conv", "full_attention"]),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **MORE, head_dim=16, sliding_window=6, num_local_experts=2, num_experts_per_tok=1, layer_types=TWO_KINDS
    ),
}
WITHOUT_CACHE = {"mamba", "rwkv", "recurrent_gemma"}
LENGTHS = [6, 20, 12, 1, 9, 18, 4, 15, 8]


def made(name):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[name]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "A_log" not in name:
                parameter.normal_(std=0.25)  # so that texts differ
    return model


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 512, (n,), generator=generator) for n in (9, 3, 1, 20, 12, 5, 30, 2, 9)]


@torch.no_grad()
def generated(model, prompt, length):
    whole = model.generate(
        input_ids=prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False, use_cache=False,
        max_new_tokens=length, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", [pytest.param(f, marks=[] if f == "mamba" else pytest.mark.slow) for f in FAMILIES])
def test_continuations_are_those_of_generate_without_a_cache(name, prompts):
    model = made(name)
    expected = [generated(model, prompt, n) for prompt, n in zip(prompts, LENGTHS, strict=True)]
    assert len(set(map(tuple, expected))) > 6, "the model must write different texts for this to test anything"
    assert [each.ids.tolist() for each in decode(model, prompts, LENGTHS, None)] == expected
    eos = expected[1][5]
    ended = [row[: row.index(eos)] if eos in row else row for row in expected]
    assert [each.ids.tolist() for each in decode(model, prompts, LENGTHS, eos)] == ended
    recomputed = isinstance(begin(model, [0], prompts[:1], [2])[0], RecomputedRows)
    assert recomputed == (name in WITHOUT_CACHE)


def test_a_cache_is_found_by_either_name_and_not_a_recurrent_state():
    """Before transformers 5.24 it was `past_key_values`, and a recurrent state `cache_params`."""

    def model(forward, **more):
        return type("Made", (torch.nn.Module,), {"forward": forward, **more})()

    assert cache_option(model(lambda self, input_ids, past_key_values=None: None)) == "past_key_values"
    assert cache_option(model(lambda self, input_ids, cache=None, **more: None)) == "cache"
    assert cache_option(model(lambda self, input_ids, cache=None: None, _is_stateful=True)) is None
    assert cache_option(model(lambda self, input_ids, cache_params=None: None)) is None
    assert cache_option(model(lambda self, **inputs: None)) == CACHE_OPTION


@pytest.mark.slow
def test_log_probabilities_and_draws_are_those_of_plain_calls(prompts):
    model = made("mamba")
    assert cache_option(model) is None
    sampling = Sampling(temperature=0.7, top_k=20, seed=5)
    together = decode(model, prompts, LENGTHS, None, sampling)
    for i, (prompt, answer) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = decode(model, [prompt], [LENGTHS[i]], None, sampling, keys=[i])
        assert alone.ids.tolist() == answer.ids.tolist()
        with torch.no_grad():
            logits = model(torch.cat([prompt, answer.ids])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        logprob = logits.log_softmax(-1).gather(1, answer.ids[:, None])[:, 0]
        torch.testing.assert_close(answer.logprob, logprob, rtol=0, atol=1e-4)
