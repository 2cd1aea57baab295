"""Small models with non-trivial adapters, texts of different lengths, and gradients of one text at a time."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import Encoded, collate
from lit_mem.scoring.scorer import TokenScorer

VOCABULARY = 97
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2,
    "intermediate_size": 48, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.1,
}  # fmt: skip


def llama(**more):
    return LlamaForCausalLM(LlamaConfig(**(SMALL | more)))


def gpt2():
    """Its linear layers are stored transposed."""
    shape = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.1}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**shape, **quiet, bos_token_id=1, eos_token_id=2, pad_token_id=0))


MODELS = {
    "sdpa": llama,
    "eager": lambda: llama(attn_implementation="eager"),
    "tied": lambda: llama(tie_word_embeddings=True),
    "gpt2": gpt2,
}


@pytest.fixture
def fresh_llama():
    return llama()


@pytest.fixture(scope="session")
def tuned():
    """Makes models with a changed adapter, in train mode."""

    def make(name="sdpa", targets=("all-linear",), dropout=0.0, **more):
        torch.manual_seed(1)
        base = MODELS[name]()
        base.requires_grad_(False)
        model = LoRA(rank=4, targets=list(targets), dropout=dropout, init="gaussian", **more).wrap(base)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.1)
        return model.train()

    return make


@pytest.fixture(scope="session")
def some_texts():
    """Makes texts of these lengths, with tokens that are not trained on."""

    def make(lengths, seed=3):
        generator = torch.Generator().manual_seed(seed)
        made = []
        for i, n in enumerate(lengths):
            ids = torch.randint(3, VOCABULARY, (n,), generator=generator)
            labels = ids.masked_fill(torch.rand(n, generator=generator) < 0.3, -100)
            labels[0], labels[-1] = -100, ids[-1]
            made.append(Encoded(ids, labels, i, True))
        return made

    return make


@pytest.fixture(scope="session")
def mean_losses():
    """Makes a function from a batch to the mean loss of each of its texts."""

    def make(model):
        scorer = TokenScorer(model)

        def losses(batch):
            total, count = scorer.text_losses(batch)
            return total / count.clamp(min=1)

        return losses

    return make


@pytest.fixture(scope="session")
def one_at_a_time():
    """The gradient of each text alone, by Hugging Face's own loss: for each text one flat tensor."""

    def gradients(model, texts):
        wanted = [p for p in model.parameters() if p.requires_grad]
        found = []
        for text in texts:
            batch = collate([text])
            loss = model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, wanted)]))
        return torch.stack(found)

    return gradients
