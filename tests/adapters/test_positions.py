"""How long a text may be: learned positions, and virtual tokens that take some of them."""

from types import SimpleNamespace

import pytest
import torch
import transformers

from lit_mem.adapters import PromptTuning
from lit_mem.adapters.positions import positions, readable, virtual_tokens
from lit_mem.attacks.likelihood import longest_input
from lit_mem.errors import ConfigError
from lit_mem.models.limits import check_reads

SIZES = {"vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
FAMILIES = {
    "gpt2": (transformers.GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=1, n_positions=24), 24),
    "opt": (transformers.OPTConfig(**SIZES, ffn_dim=8, word_embed_proj_dim=8, max_position_embeddings=24), 24),
    "roberta": (
        transformers.RobertaConfig(**SIZES, intermediate_size=8, max_position_embeddings=24, is_decoder=True), 22,
    ),
    "llama": (transformers.LlamaConfig(**SIZES, intermediate_size=8, max_position_embeddings=24), 24),
    "bloom": (transformers.BloomConfig(vocab_size=64, hidden_size=8, n_layer=1, n_head=1), None),
}  # fmt: skip
# Only to name them; nothing is merged or converted here.
pytestmark = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")


def made(family):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(FAMILIES[family][0]).eval()


def reads(model, n):
    """Whether the model accepts a text of n tokens."""
    ids = torch.arange(3, 3 + n)[None]
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("virtual", [0, 5])
@pytest.mark.parametrize("family", ["gpt2", "opt", "roberta"])
def test_the_limit_is_the_longest_text_that_goes_through(family, virtual):
    model = made(family)
    if virtual:
        model = PromptTuning(tokens=virtual).wrap(model)
    limit = readable(model)
    assert limit == FAMILIES[family][1] - virtual
    assert reads(model, limit)
    assert not reads(model, limit + 1)
    check_reads(model, "it", limit, 63)
    assert longest_input(SimpleNamespace(language_model=model)) == limit
    with pytest.raises(ConfigError, match=rf"has {limit + 1} tokens.* reads {limit + virtual}; .* to {limit} or less"):
        check_reads(model, "it", limit + 1, 63)


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_of_families(family):
    model = made(family)
    assert positions(model) == FAMILIES[family][1]
    assert virtual_tokens(model) == 0


def test_virtual_tokens_are_counted_in_the_message():
    model = PromptTuning(tokens=20).wrap(made("gpt2"))
    with pytest.raises(ConfigError, match=r"has 5 tokens and model\.adapter prepends 20 virtual tokens"):
        check_reads(model, "it", 5, 63)
    model = PromptTuning(tokens=24).wrap(made("gpt2"))
    with pytest.raises(ConfigError, match="prepends 24 virtual tokens, but it reads 24"):
        check_reads(model, "it", 5, 63)


def test_a_run_checks_with_its_adapter(module, data, trainer, tmp_path):
    model = module(adapter=PromptTuning(tokens=500))  # the bundled model reads 512
    with pytest.raises(ConfigError, match=r"500 virtual tokens.*set data\.max_length to 12 or less"):
        trainer([]).validate(model, data(), verbose=False)
