"""Texts in windows are scored like in a plain loop that calls the model on one window at a time."""

import pytest
import torch

from lit_mem.data.encoding import Encoded, collate
from lit_mem.scoring.reference_scores import ReferenceCache
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import IGNORED, Needs, Sampling, Windows

TOP = Sampling(top_k=5)


@torch.no_grad()
def plain(model, ids, tokens, stride, bos):
    """Lists of log-probability, hit, log-probability under TOP, μ and σ for each token with context.

    Window by window, with `model(input_ids=...)` on one at a time.
    """
    head, body = (ids[:1], ids[1:]) if bos else (ids[:0], ids)
    limit = tokens - len(head)
    step = min(stride, limit if bos else limit - 1)
    end, before, found = min(limit, len(body)), 0, ([], [], [], [], [])
    while True:
        begin = max(0, end - limit)
        row = torch.cat([head, body[begin:end]])
        logits = model(input_ids=row[None]).logits[0]
        for t in range(before, end):
            at = t - begin + len(head)
            if at == 0:
                assert t == 0  # only the text's first token has no context
                continue
            scores = logits[at - 1].log_softmax(-1)
            kept = logits[at - 1].topk(TOP.top_k)
            place = (kept.indices == body[t]).nonzero()
            mean = (scores.exp() * scores).sum()
            values = (
                scores[body[t]].item(),
                int(logits[at - 1].argmax()) == int(body[t]),
                kept.values.log_softmax(-1)[place[0, 0]].item() if len(place) else -torch.inf,
                mean.item(),
                ((scores.exp() * scores**2).sum() - mean**2).clamp(min=0).sqrt().item(),
            )
            for into, value in zip(found, values, strict=True):
                into.append(value)
        if end == len(body):
            return found
        before, end = end, min(end + step, len(body))


def long_ids(tokenizer, texts, n, bos):
    ids = torch.tensor(tokenizer(" ".join(texts))["input_ids"][: n + (not bos)])
    assert len(ids) == n + (not bos)
    return ids if bos else ids[1:]


def document(ids, tokens, stride, bos, example_id=0):
    labels = ids.clone()
    labels[0] = IGNORED
    return Encoded(ids, labels, example_id, True, windows=Windows(tokens, stride, int(bos), len(ids)))


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(("tokens", "stride"), [(32, 16), (32, 32), (20, 7), (16, 1), (96, 50)])
def test_scores_are_those_of_one_window_at_a_time(base, tokenizer, texts, tokens, stride, bos):
    ids = long_ids(tokenizer, texts, 77 if stride > 1 else 40, bos)
    needs = Needs(moments=True, sampling=frozenset([TOP]))
    scores = TokenScorer(base)(collate([document(ids, tokens, stride, bos)]), needs)
    logprob, hit, sampled, mean, std = plain(base, ids, tokens, stride, bos)
    assert scores.mask[0].tolist() == [False] + [True] * (len(ids) - 1)
    assert scores.logprob[0, 1:].tolist() == pytest.approx(logprob, abs=2e-5)
    assert scores.hit[0, 1:].tolist() == hit
    assert scores.sampled[TOP][0, 1:].tolist() == pytest.approx(sampled, abs=2e-5)
    assert scores.mean[0, 1:].tolist() == pytest.approx(mean, abs=2e-5)
    assert scores.std[0, 1:].tolist() == pytest.approx(std, abs=2e-4)


def test_texts_of_one_batch_do_not_depend_on_each_other(base, tokenizer, texts):
    ids = [long_ids(tokenizer, texts[i:], n, True) for i, n in enumerate((70, 9, 41, 20))]
    examples = [document(each, 24, 10, True, i) for i, each in enumerate(ids)]
    short = [Encoded(one.input_ids, one.labels, one.example_id, True) for one in examples]
    examples[1], examples[3] = short[1], short[3]  # read whole
    batch, needs = collate(examples), Needs(moments=True)
    scorer = TokenScorer(base)
    together = scorer(batch, needs)
    for row, one in enumerate(examples):
        alone = scorer(collate([one]), needs)
        n = len(one.input_ids)
        for name in ("logprob", "mean", "std"):
            mine, theirs = getattr(together, name)[row], getattr(alone, name)[0]
            assert mine[:n].tolist() == pytest.approx(theirs.tolist(), abs=2e-5), name
            assert not mine[n:].any()
        assert together.hit[row, :n].tolist() == alone.hit[0].tolist()
    for at_once in (1, 24, 50, 10_000):
        few = scorer(batch | {"at_once": at_once}, needs)
        torch.testing.assert_close(few.logprob, together.logprob, atol=2e-5, rtol=0)


def test_what_is_not_scored_costs_no_window(base, tokenizer, texts):
    """A long prompt: windows before the first scored token are not run."""
    ids = long_ids(tokenizer, texts, 90, True)
    one = document(ids, 20, 10, True)
    one.labels[:75] = IGNORED
    rows = []

    class Counting(TokenScorer):
        def _read(self, batch, mask):
            rows.append(len(batch["input_ids"]))
            return super()._read(batch, mask)

    scorer = Counting(base)
    rows.clear()
    scores = scorer(collate([one]))
    assert sum(rows) == 2  # windows end at 80 and at 90
    expected = plain(base, ids, 20, 10, True)[0]
    assert scores.logprob[0, 75:].tolist() == pytest.approx(expected[74:], abs=2e-5)
    assert not scores.logprob[0, :75].any()
    one.labels[:] = IGNORED
    assert not TokenScorer(base)(collate([one]), Needs(moments=True)).mask.any()


def test_other_windows_are_other_reference_scores(base, tokenizer, texts):
    ids = long_ids(tokenizer, texts, 60, True)
    cache, scorer = ReferenceCache(), TokenScorer(base)
    for tokens in (20, 30, 20):
        batch = collate([document(ids, tokens, 10, True)])
        found, _ = cache.scores(batch, scorer)
        assert torch.equal(found, scorer(batch).logprob)
    assert cache.computed == 2
