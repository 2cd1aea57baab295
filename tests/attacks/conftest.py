"""Fixtures of the attacks that ask the model: texts with records, a tuned model, and somebody to ask."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from lit_mem.adapters.base import frozen_reference
from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import Encoded, collate
from lit_mem.errors import ConfigError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Record


class SmallProber:
    """A prober over one model, its tokenizer and a handful of texts; counts how often it is asked."""

    def __init__(self, tokenizer, language_model, examples=(), population=None, copy=None):
        self.tokenizer, self.language_model = tokenizer, language_model
        self.examples = list(examples)
        self._population = population
        self._copy = copy
        self._scorer = TokenScorer(language_model)
        self.asked = []

    def score(self, batch):
        assert not self.language_model.training
        self.asked.append(batch)
        return self._scorer(batch)

    def texts(self, member) -> Mapping[int, torch.Tensor]:
        if not self.examples:
            raise ConfigError("no texts here")
        return {e.example_id: e.input_ids for e in self.examples if e.member == member}

    def reference_context(self):
        return frozen_reference(self.language_model, self._copy)

    def forward_context(self):
        return nullcontext()

    def population(self, references):
        assert self._population is not None
        return lambda batch: self._population(references, batch)


@pytest.fixture
def make_prober():
    return SmallProber


@pytest.fixture
def encode(tokenizer):
    """Encodes a text behind a prompt as the data does: labels on the text, an appended end token, a record."""

    def make(text, example_id=0, member=False, prompt="", bos=True, eos=True, length=None):
        encoded = tokenizer(prompt + text, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        if not bos:
            ids, offsets = ids[1:], offsets[1:]
        ids, offsets = ids[:length], offsets[:length]
        text = text[: max(end for _, end in offsets) - len(prompt)]
        labels = [i if end > len(prompt) else -100 for i, (_, end) in zip(ids, offsets, strict=True)]
        labels[0] = -100
        tail = [tokenizer.eos_token_id] if eos else []
        return Encoded(
            torch.tensor(ids + tail), torch.tensor(labels + tail), example_id, member, len(tail), Record(text)
        )

    return make


@pytest.fixture
def small(encode, texts):
    """Eight texts of 1 to 22 scored tokens, an appended end token each; even ids are members."""
    return [encode(text, i, i % 2 == 0, length=2 + 3 * i) for i, text in enumerate(texts[:8])]


@pytest.fixture
def tuned(base):
    """A LoRA model that is no longer its base."""
    model = LoRA(rank=4, dropout=0.1).wrap(base).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


@pytest.fixture
def scored():
    """Scores examples with a prober's model, as the validation step would, with nothing counted as asked."""

    def score(prober, examples, width=None):
        batch = collate(examples)
        if width is not None:
            more = width - batch["input_ids"].shape[1]
            batch["input_ids"] = torch.nn.functional.pad(batch["input_ids"], (0, more))
            batch["labels"] = torch.nn.functional.pad(batch["labels"], (0, more), value=-100)
            batch["scored"] = torch.nn.functional.pad(batch["scored"], (0, more))
        return replace(prober._scorer(batch), batch=batch)

    return score


@pytest.fixture
def loss_of():
    """−mean log-probability of the ids from `start` on, by the model's own loss, one text alone."""

    @torch.no_grad()
    def loss(model, ids, start):
        ids = torch.as_tensor(ids)[None]
        labels = ids.clone()
        labels[:, :start] = -100
        return model(input_ids=ids, labels=labels).loss.item()

    return loss


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory):
    """The folder of a tiny random BERT with a word-piece vocabulary of whole words, pieces and punctuation."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = "the a was with patient woman man fever drug dose pain rash old year she he after before day week".split()
    letters = [prefix + c for c in "abcdefghijklmnopqrstuvwxyz0123456789" for prefix in ("", "##")]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *".,-()%:;/'"]
    vocabulary = {name: i for i, name in enumerate(dict.fromkeys(names))}
    pieces = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=pieces, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=128, initializer_range=0.3,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("masked_lm")
    BertForMaskedLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)
