"""Adapters that peft trained elsewhere with added tokens, with their tokenizer in the folder."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import lit_mem
from lit_mem import CausalLM, assets
from lit_mem.audit.subject_models import audited_model, reference_of, tokenizer_of

ADDED = ["<drug>", "<effect>"]
WAYS = {
    "lora alone": {},
    "whole layers": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "rows": {"trainable_token_indices": [2048, 2049]},
}
IDS = torch.tensor([[1, 5, 2048, 9, 2049]])


@pytest.fixture(scope="module", params=WAYS)
def saved(request, tmp_path_factory):
    """The folder of an adapter as peft saves it, and the logits of the model that it was saved from."""
    folder, base = tmp_path_factory.mktemp("adapter"), str(assets.path("tiny_llama"))
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    tokenizer.add_tokens(ADDED)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer))
        config = LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **WAYS[request.param])
        tuned = get_peft_model(model, config).eval()
        with torch.no_grad():
            for weight in tuned.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight) * 0.02)
        tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with torch.no_grad():
        return folder, tuned(input_ids=IDS).logits


def test_the_model_is_the_one_that_was_saved(saved):
    folder, logits = saved
    state = torch.get_rng_state()
    audited = audited_model(folder, device="cpu")
    tokenizer = tokenizer_of(None, audited)
    assert torch.equal(torch.get_rng_state(), state)
    assert tokenizer.convert_tokens_to_ids(ADDED) == [2048, 2049]
    with torch.no_grad():
        assert torch.equal(audited.model(input_ids=IDS).logits, logits)
        base = AutoModelForCausalLM.from_pretrained(assets.path("tiny_llama"))(input_ids=IDS[:, :2]).logits
        assert reference_of("auto", audited, tokenizer) == "adapter_off"
        with audited.model.disable_adapter():
            torch.testing.assert_close(audited.model(input_ids=IDS[:, :2]).logits[..., :2048], base)


def test_texts_with_added_tokens_are_audited_and_validated(saved, data, trainer):
    folder, logits = saved
    texts = (
        [f"<drug> aspirin {i} <effect> rash" for i in range(6)],
        [f"<drug> iron {i} <effect> fever" for i in range(6)],
    )
    found = lit_mem.audit(folder, None, *texts, suite="quick", folder=None, check=False, device="cpu")
    assert 0 < found.metrics["memorization/perplexity_members"] < 1e6
    module = CausalLM(adapter_path=str(folder))
    module.configure_model()
    module.eval()
    assert len(module.tokenizer) == 2050
    with torch.no_grad():
        assert torch.equal(module.language_model(input_ids=IDS).logits, logits)
    trainer([]).validate(module, data(train_size=4, heldout_size=4), verbose=False)
