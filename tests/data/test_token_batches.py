"""Tokens of many texts: their positions equal the tokenizer's offsets, for any tokenizer."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lit_mem.data.token_batches import TokenBatch, one_ahead

CORPUS = ["a rash after the drug", "Fever, and 皮疹 é at once!", "the ward  of a patient\n"]
SPECIAL = ["<s>", "</s>", "<unk>"]
ODD = ["  a", "<s>a", "", " ", "a</s>", "皮疹 rash"]
TEXTS = st.text("ab ré皮疹🙂\u0301\n<>s/", max_size=12) | st.sampled_from(ODD)


def trained(pre_tokenizer, normalizer=None, template=None, kind=models.BPE, trim=None):
    made = Tokenizer(kind(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    trainer = trainers.BpeTrainer if kind is models.BPE else trainers.WordLevelTrainer
    made.train_from_iterator(CORPUS, trainer(special_tokens=SPECIAL, show_progress=False))
    parts = []
    if trim is not None:
        parts.append(processors.ByteLevel(trim_offsets=trim))
    if template:
        pairs = [(name, made.token_to_id(name)) for name in SPECIAL[:2]]
        parts.append(processors.TemplateProcessing(single=template, special_tokens=pairs))
    if parts:
        made.post_processor = processors.Sequence(parts)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


KINDS = {
    "bytes, trimmed": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False), trim=True),
    "bytes, a space in front": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True), trim=False),
    "metaspace, bos": lambda: trained(pre_tokenizers.Metaspace(), template="<s> $A"),
    "metaspace, bos and eos": lambda: trained(pre_tokenizers.Metaspace(), template="<s> $A </s>"),
    "prepended": lambda: trained(
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        "<s> $A",
    ),
    "words, two eos": lambda: trained(
        pre_tokenizers.Whitespace(), normalizers.NFKC(), "$A </s> </s>", kind=models.WordLevel
    ),
}


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), n=st.integers(0, 5))
def test_tokens_and_their_places_are_the_tokenizers(made, kind, texts, n):
    tokenizer = made[kind]
    batch = TokenBatch(tokenizer, texts)
    for i, text in enumerate(texts):
        one = tokenizer(text, return_offsets_mapping=True)
        ends = [end for _, end in one["offset_mapping"]]
        assert batch.ids(i).tolist() == one["input_ids"]
        assert list(batch.offsets(i)) == one["offset_mapping"]
        assert batch.ends(i).tolist() == ends
        assert batch.after(i, 0).tolist() == [end > 0 for end in ends]
        assert batch.after(i, n).tolist() == [end > n for end in ends]


def test_the_next_part_is_computed_meanwhile_and_results_come_in_order():
    begun = {i: threading.Event() for i in range(4)}

    def compute(i):
        begun[i].set()
        return i * i

    found = []
    for i, square in one_ahead(range(4), compute):
        assert begun[min(i + 1, 3)].wait(5)  # not requested yet
        found.append((i, square))
    assert found == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert list(one_ahead([], compute)) == []


def test_an_error_comes_where_its_turn_is():
    def compute(i):
        if i == 2:
            raise ValueError("two")
        return i

    found = one_ahead(range(5), compute)
    assert [next(found)[0], next(found)[0]] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(found)
