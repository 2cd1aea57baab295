"""Which tokens are scored, and what their sum is divided by."""

import copy
import math

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from lit_mem.attacks import Loss, MinK
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.data.encoding import Encoded, Encoder, collate
from lit_mem.errors import DataError
from lit_mem.functional.auroc import auroc
from lit_mem.models.base_models import load_base
from lit_mem.scoring.scorer import TokenScorer


def rows(*texts, prompt=""):
    n = len(texts)
    return Dataset.from_dict({"prompt": [prompt] * n, "completion": list(texts), "origin": ["x"] * n})


def without_bos(tokenizer):
    from tokenizers.processors import TemplateProcessing

    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    return bare


def test_the_loss_is_divided_by_the_tokens_that_were_predicted(base, tokenizer, texts, batch_of, alone):
    """open-unlearning divides by the labels before the shift; the first of them, if labelled, is never predicted."""
    ids = torch.tensor(tokenizer(texts[0])["input_ids"][:9])
    theirs = -alone(base, ids).sum().item() / len(ids)
    right = base(input_ids=ids[None], labels=ids[None]).loss.item()
    assert theirs == pytest.approx(right * 8 / 9, rel=1e-5)
    scores = TokenScorer(base)(batch_of(ids))
    assert scores.n_tokens.tolist() == [8]
    assert -Loss()(scores).item() == pytest.approx(right, rel=1e-5)


def test_loss_and_min_k_score_the_same_tokens_the_last_one_too(base, tokenizer, texts, batch_of, alone):
    """open-unlearning's token scores omit the last label as an end token, even if it is a word of the text."""
    ids = torch.tensor(tokenizer(texts[0])["input_ids"][:9])
    logits = base(input_ids=ids[None]).logits[0, -2]
    ids[-1] = logits.argmin()  # the least likely token is last
    right = alone(base, ids)
    theirs = right[:-1]
    assert right.argmin() == 7
    assert theirs.min() > right.min() + 1
    scores = TokenScorer(base)(batch_of(ids))
    assert MinK(share=0.1)(scores).item() == pytest.approx(right.min().item(), rel=1e-5)
    assert MinK(share=1.0)(scores).item() == pytest.approx(Loss()(scores).item(), rel=1e-12)


def test_only_an_end_token_that_was_appended_is_left_out(tokenizer):
    """open-unlearning's `[:-1]` is right for a text with its end token, and drops a word of a truncated one."""
    text = "the patient recovered after the drug was stopped"
    whole, cut = (Encoder(tokenizer, length, add_eos=True)(rows(text), 0, True, "t")[0] for length in (64, 6))
    assert whole.input_ids[-1] == tokenizer.eos_token_id != cut.input_ids[-1]
    theirs = [int((e.labels != -100).sum()) - 1 for e in (whole, cut)]
    n_text_tokens = len(tokenizer(text)["input_ids"]) - 1
    assert [int(e.scored.sum()) for e in (whole, cut)] == [n_text_tokens, 5]
    assert theirs == [n_text_tokens, 4]


def test_every_example_has_the_loss_of_its_own(base, examples):
    """ft-memorization records the loss of the batch for each of its examples, right only for batches of one."""
    some = examples[:6]
    batch = collate(some)
    theirs = torch.full((6,), TokenScorer(base).loss(batch).item())
    ours = -Loss()(TokenScorer(base)(batch))
    right = [base(input_ids=e.input_ids[None], labels=e.labels[None]).loss.item() for e in some]
    assert ours.tolist() == pytest.approx(right, rel=1e-5)
    assert (ours - theirs).abs().max() > 0.1
    assert auroc(-theirs, batch["member"]).value == 0.5  # a batch's loss carries no information


@pytest.mark.parametrize("pad", [0, 2, 3])
def test_padding_is_known_by_its_place_and_not_by_its_token(base, tokenizer, texts, alone, pad):
    """If the padding token is the end token (SmolLM2), a mask by token omits real tokens."""
    words = tokenizer(texts[0])["input_ids"]
    ids = torch.tensor([*words[:4], pad, *words[4:7], pad])
    labels = ids.clone()
    labels[0] = -100
    longer = torch.tensor(tokenizer(texts[1])["input_ids"][:20])
    batch = collate([Encoded(ids, labels, 0, True), Encoded(longer, longer.clone(), 1, False)])
    padded = torch.where(torch.arange(20) < len(ids), batch["input_ids"][0], pad)
    by_token = int((padded[1:] != pad).sum())
    scores = TokenScorer(base)({**batch, "input_ids": torch.stack([padded, longer])})
    assert by_token == len(ids) - 3
    assert scores.n_tokens[0] == len(ids) - 1
    assert scores.total_logprob[0].item() == pytest.approx(alone(base, ids).sum().item(), rel=1e-5)


def test_the_pad_behind_a_text_is_no_token_of_it(base, examples, alone):
    """copyright-traps and mia_llms_benchmark mask a token by the mask of the previous one: a pad is scored."""
    some = [examples[0], examples[6]]
    batch = collate(some)
    lengths = torch.tensor([[len(e.input_ids)] for e in some])
    attention = torch.arange(batch["input_ids"].shape[1]) < lengths
    logits = base(input_ids=batch["input_ids"], attention_mask=attention.long()).logits[:, :-1]
    nll = cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
    theirs = ((nll * attention[:, :-1]).sum(1) / attention[:, :-1].sum(1))[0].item()
    shifted_mask = ((nll * attention[:, 1:]).sum(1) / attention[:, 1:].sum(1))[0].item()
    right = -alone(base, some[0].input_ids).mean().item()
    assert shifted_mask == pytest.approx(right, rel=1e-5)
    assert abs(theirs - right) > 0.1
    assert -Loss()(TokenScorer(base)(batch))[0].item() == pytest.approx(right, rel=1e-5)


def test_batches_are_padded_where_no_real_token_sees_it(base, examples, alone):
    """Without a mask, which right padding does not need, left padding would be read as text."""
    some = [examples[0], examples[6]]
    scores = TokenScorer(base)(collate(some))
    right = torch.stack([alone(base, e.input_ids).sum() for e in some])
    torch.testing.assert_close(scores.total_logprob, right, rtol=1e-5, atol=0)
    short, width = some[0].input_ids, len(some[1].input_ids)
    leftward = torch.cat([torch.zeros(width - len(short), dtype=torch.int64), short])
    assert abs(alone(base, leftward)[-len(short) + 1 :].sum() - right[0]) > 0.1


@pytest.mark.parametrize("name", default_attacks())
def test_attacks_read_the_mask_and_not_the_side_of_the_padding(all_scores_of, name):
    attack = default_attacks()[name]
    plain, right, left = all_scores_of(), all_scores_of(width=12), all_scores_of(width=12, left=True)
    assert attack(left).tolist() == attack(right).tolist() == pytest.approx(attack(plain).tolist(), rel=1e-12)


@pytest.mark.parametrize("n_tokens", [1, 2])
@pytest.mark.parametrize("name", default_attacks())
def test_one_or_two_tokens_are_enough_for_every_attack(all_scores_of, name, n_tokens):
    """A share of few tokens rounds to 0, and a window does not fit: NaN in several tools, silently dropped in mimir."""
    score = default_attacks()[name](all_scores_of(likelier=(0.0, 0.7), n_tokens=n_tokens))
    assert torch.isfinite(score).all()
    assert score[1] >= score[0]


def test_a_text_without_a_token_to_score_is_refused(tokenizer):
    """A loss of 0 for a text without scored tokens, as in open-unlearning, makes it the strongest member of all."""
    bare = Encoder(without_bos(tokenizer), 64, add_eos=False)
    (one,) = tokenizer.convert_ids_to_tokens([tokenizer(".")["input_ids"][-1]])
    with pytest.raises(DataError, match="no token left to train on and score"):
        bare(rows(one), 0, True, "t")
    with pytest.raises(DataError, match="no token left to train on and score"):
        Encoder(tokenizer, 4, add_eos=True)(rows("rash", prompt="a long prompt that fills it all: "), 0, True, "t")


def test_the_first_token_of_a_text_is_scored_where_a_bos_token_stands_before_it(tokenizer, base, alone):
    """Llama-2 adds a BOS token and SmolLM2 does not: nothing may be cut off as if there were one."""
    text = "the patient recovered"
    with_bos, bare = (
        Encoder(t, 64, add_eos=False)(rows(text), 0, True, "t")[0] for t in (tokenizer, without_bos(tokenizer))
    )
    n = len(bare.input_ids)
    assert with_bos.input_ids.tolist() == [tokenizer.bos_token_id, *bare.input_ids.tolist()]
    assert (int(with_bos.scored.sum()), int(bare.scored.sum())) == (n, n - 1)
    scores = [TokenScorer(base)(collate([e])).total_logprob.item() for e in (with_bos, bare)]
    assert scores == pytest.approx([alone(base, e.input_ids).sum().item() for e in (with_bos, bare)], rel=1e-5)
    cut_off = alone(base, bare.input_ids[1:]).sum().item()
    assert abs(scores[1] - cut_off) > 0.1


def test_a_bfloat16_model_is_scored_in_float32(fixed_logits, batch_of, batch):
    """A log-softmax in bfloat16 has three digits: near −10 nats its steps are 0.06 wide."""
    logits = (3 * torch.randn(2048)).bfloat16()
    ids = torch.arange(1, 400)
    right = logits.double().log_softmax(-1)[ids[1:]]
    theirs = logits.log_softmax(-1)[ids[1:]].double()
    scores = TokenScorer(fixed_logits(logits))(batch_of(ids))
    assert scores.logprob.dtype == torch.float32
    assert (theirs - right).abs().max() > 0.01
    torch.testing.assert_close(scores.logprob[0, 1:].double(), right, rtol=0, atol=5e-6)
    model = load_base("asset:tiny_llama", dtype="bfloat16").eval()
    scores = TokenScorer(model)(batch)
    assert scores.logprob.dtype == torch.float32
    ours = scores.logprob[scores.mask]
    assert (ours.bfloat16().float() != ours).float().mean() > 0.9


def test_a_hundred_and_twenty_nats_are_not_infinitely_many(fixed_logits, batch_of):
    """torchmetrics 1.9's perplexity is a softmax followed by a logarithm, which float32 rounds to log 0."""
    logits = torch.tensor([120.0, 0.0, 0.0])
    theirs = -logits.softmax(-1)[1].log().item()
    assert theirs == math.inf
    assert -Loss()(TokenScorer(fixed_logits(logits))(batch_of([0, 1, 1]))).item() == pytest.approx(120.0, abs=1e-4)
