"""The zlib attack compared with the model's own loss and Python's compressor, one text at a time."""

import random
import zlib
from dataclasses import replace

import pytest
import torch

from lit_mem.attacks import Zlib
from lit_mem.data.encoding import collate
from lit_mem.errors import MetricError
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Record, TokenScores


def with_texts(scores, texts):
    batch = {
        "input_ids": torch.zeros_like(scores.mask, dtype=torch.int64),
        "labels": torch.zeros_like(scores.mask, dtype=torch.int64),
        "example_id": scores.example_id,
        "member": scores.member,
        "records": [Record(text) for text in texts],
    }
    return replace(scores, batch=batch)


def scores_of(totals):
    """One example per total log-probability, spread over three tokens."""
    logprob = torch.zeros(len(totals), 5)
    logprob[:, 1:4] = torch.tensor(totals)[:, None] / 3
    mask = torch.zeros(len(totals), 5, dtype=torch.bool)
    mask[:, 1:4] = True
    ids = torch.arange(len(totals))
    return TokenScores(logprob, torch.zeros_like(mask), mask, ids, ids % 2 == 0)


@torch.no_grad()
def test_it_is_the_models_loss_for_each_compressed_byte(base, examples, tokenizer):
    texts = [tokenizer.decode(example.input_ids, skip_special_tokens=True) for example in examples]
    score = Zlib()(with_texts(TokenScorer(base)(collate(examples)), texts))
    for value, example, text in zip(score.tolist(), examples, texts, strict=True):
        loss = base(input_ids=example.input_ids[None], labels=example.labels[None]).loss.item()
        total = -loss * (len(example.input_ids) - 1)
        assert value == pytest.approx(total / len(zlib.compress(text.encode("utf-8"))), abs=2e-5)


def test_bytes_are_counted_not_characters():
    texts = ["aé漢😀", "aeio"]
    score = Zlib()(with_texts(scores_of([-6.0, -6.0]), texts))
    sizes = [len(zlib.compress(text.encode("utf-8"))) for text in texts]
    assert sizes[0] > sizes[1]
    assert score.tolist() == pytest.approx([-6 / size for size in sizes], abs=1e-6)


def test_of_two_equally_likely_texts_the_repetitive_one_looks_less_like_a_member():
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=200)
    repetitive, varied = Zlib()(with_texts(scores_of([-9.0, -9.0]), ["ab" * 100, "".join(letters)]))
    assert repetitive < varied < 0


def test_an_empty_text_is_finite():
    assert torch.isfinite(Zlib()(with_texts(scores_of([-9.0]), [""]))).all()


@pytest.mark.parametrize("batch", [None, {}])
def test_without_texts_it_says_so(batch):
    with pytest.raises(MetricError, match="zlib attack needs the examples' texts"):
        Zlib()(replace(scores_of([-1.0]), batch=batch))
