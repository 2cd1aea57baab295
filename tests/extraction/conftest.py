"""Tiny encoders with random weights, made once per session."""

import string

import pytest
import torch


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory):
    """Makes a folder with an encoder of two layers and a tokenizer: `encoder_folder("bert")`, or "roberta"."""
    from transformers import BertConfig, BertModel, BertTokenizerFast, RobertaConfig, RobertaModel

    characters = [*string.ascii_lowercase, *string.digits, *".,-皮疹"]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *("##" + c for c in characters),
        "rash",
        "dose",
    ]
    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,  # so that vectors of different tokens differ clearly
    }
    kinds = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
    made = {}

    def make(kind="bert"):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            config, model = kinds[kind]
            with torch.random.fork_rng():
                torch.manual_seed(1)
                model(config(pad_token_id=0, **sizes)).save_pretrained(folder)
            BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(folder)
            made[kind] = str(folder)
        return made[kind]

    return make


@pytest.fixture(scope="session")
def encoder(encoder_folder):
    """The tiny BERT as loaded by transformers: (tokenizer, model)."""
    from transformers import AutoModel, AutoTokenizer

    folder = encoder_folder()
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
