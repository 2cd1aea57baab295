"""Texts to tokens, labels and scored positions; examples to batches."""

import pytest
import torch
from datasets import Dataset

from lit_mem.data.batching import ScoringBatches, length_groups
from lit_mem.data.encoding import Encoded, Encoder, collate
from lit_mem.errors import DataError


def rows(*pairs):
    prompts, completions = zip(*pairs, strict=True)
    origins = [f"file:{i}" for i in range(1, len(pairs) + 1)]
    return Dataset.from_dict({"prompt": prompts, "completion": completions, "origin": origins})


def encode(tokenizer, *pairs, max_length=64, add_eos=True):
    return Encoder(tokenizer, max_length, add_eos)(rows(*pairs), 7, True, "training")


def test_a_text_is_trained_on_whole_and_scored_without_the_appended_end(tokenizer):
    (example,) = encode(tokenizer, ("", "A rash followed."))
    ids = tokenizer("A rash followed.")["input_ids"]
    assert example.input_ids.tolist() == [*ids, tokenizer.eos_token_id]
    assert example.labels.tolist() == [-100, *ids[1:], tokenizer.eos_token_id]
    assert example.scored.tolist() == [False] + [True] * (len(ids) - 1) + [False]
    (plain,) = encode(tokenizer, ("", "A rash followed."), add_eos=False)
    assert plain.input_ids.tolist() == ids
    assert plain.scored.tolist() == [False] + [True] * (len(ids) - 1)


def test_a_prompt_is_given_and_not_trained_on(tokenizer):
    (example,) = encode(tokenizer, ("Drug: ibuprofen.", " Effect: rash."))
    trained = example.input_ids[example.labels != -100]
    assert tokenizer.decode(trained, skip_special_tokens=True) == " Effect: rash."
    assert (example.labels[example.labels != -100] == trained).all()


def test_a_long_text_is_cut_and_counted(tokenizer, caplog):
    import logging

    logging.getLogger("lit_mem").propagate = True
    examples = encode(tokenizer, ("", "word " * 50), ("", "A rash."), max_length=10)
    assert [len(e.input_ids) for e in examples] == [10, len(tokenizer("A rash.")["input_ids"]) + 1]
    assert examples[0].scored.sum() == 9  # its end was cut off, so its last token is one of the text
    assert "1 of 2 training texts were cut to data.max_length=10" in caplog.text


def test_nothing_left_to_score_is_refused_with_the_row(tokenizer):
    with pytest.raises(DataError, match=r"file:2: no token to train on and score is left"):
        encode(tokenizer, ("", "A rash."), ("word " * 50, "end"), max_length=10)


def test_a_text_that_spells_the_bos_token_gets_one(tokenizer):
    (example,) = encode(tokenizer, ("", f"{tokenizer.bos_token}A rash."))
    assert example.input_ids[:2].tolist() != [tokenizer.bos_token_id] * 2


def test_ids_count_up_and_padding_is_neither_trained_on_nor_scored(tokenizer):
    examples = encode(tokenizer, ("", "A rash."), ("", "A severe rash followed the second dose."))
    batch = collate(examples)
    assert batch["example_id"].tolist() == [7, 8]
    assert batch["member"].tolist() == [True, True]
    n = len(examples[0].input_ids)
    assert (batch["labels"][0, n:] == -100).all()
    assert not batch["scored"][0, n:].any()
    assert torch.equal(batch["input_ids"][0, :n], examples[0].input_ids)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_example_is_scored_and_every_rank_gets_as_many_batches(world):
    lengths = [3, 30, 5, 5, 9, 1, 12, 30, 2]
    examples = [Encoded(torch.zeros(n).long(), torch.zeros(n).long(), i, True) for i, n in enumerate(lengths)]
    dealt = [list(ScoringBatches(examples, 32, world, rank)) for rank in range(world)]
    assert len({len(batches) for batches in dealt}) == 1
    assert {i for batches in dealt for batch in batches for i in batch} == set(range(9))
    groups = length_groups(lengths, 32)
    assert all(batch in groups for batches in dealt for batch in batches)
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 32 for g in groups)
