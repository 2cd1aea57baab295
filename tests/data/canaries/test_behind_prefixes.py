"""Canaries after prefixes of the base model: drawn as documented, and round-tripped by the tokenizer."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest, chisquare

from lit_mem.adapters import FullFineTuning, HeadOnly, LoRA
from lit_mem.data.canaries import Bigram, NewTokens, Setting, Unigram, UnlikelySuffix
from lit_mem.data.canaries.behind_prefixes import Base, spelled_tokens
from lit_mem.data.overlap import normalized
from lit_mem.errors import ConfigError
from lit_mem.models.base_models import load_base

pytestmark = pytest.mark.slow

KINDS = [Unigram, Bigram, UnlikelySuffix, NewTokens]
DATA = ["A man took aspirin, and a rash came on day 3.", "Nausea after lithium was stopped."]


@pytest.fixture(scope="module")
def model():
    return load_base("asset:tiny_llama").eval()


@pytest.fixture(scope="module")
def setting(tokenizer, model):
    return Setting(tokenizer, DATA, base_model=lambda: model)


@pytest.fixture(scope="module")
def made(setting):
    """24 canaries of each kind, with short prefixes."""
    return {kind: kind(24, prefix_length=6, length=2).make(setting) for kind in KINDS}


@pytest.fixture(scope="module")
def base(tokenizer, model):
    return Base(model, tokenizer, tokenizer.bos_token_id, spelled_tokens(tokenizer), frozenset)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_text_gives_the_tokens_back_and_the_seam_is_theirs(made, tokenizer, kind):
    for canary in made[kind]:
        prefix, text = ids(tokenizer, canary.content.prefix), ids(tokenizer, canary.content.text)
        assert text[:6] == prefix
        assert len(text) == 8
        assert tokenizer.decode(text) == canary.content.text
        assert not {*tokenizer.all_special_ids} & set(text)
        assert canary.content.text.isprintable() or not canary.content.prefix.isprintable()
        assert canary.repetitions == 1
    texts = [normalized(canary.content.text) for canary in made[kind]]
    assert len(set(texts)) == 24
    assert not {*texts} & {normalized(text) for text in DATA}


@pytest.mark.parametrize("kind", [Unigram, NewTokens])
def test_the_same_for_the_same_seed_and_more_change_none(made, setting, kind):
    assert kind(24, prefix_length=6, length=2).make(setting) == made[kind]
    more = kind(30, prefix_length=6, length=2).make(setting)
    assert more[:24] == made[kind]
    assert kind(24, prefix_length=6, length=2, seed=1).make(setting) != made[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_coins_say_nothing_of_what_a_canary_says(made, kind):
    n = sum(canary.inserted for canary in made[kind])
    assert binomtest(n, 24).pvalue > 0.01
    assert len({canary.inserted for canary in made[kind]}) == 2


def test_frequencies_are_those_of_a_plain_loop(base, model):
    """The mean softmax over all positions of sampled texts, token by token."""
    from lit_mem.data.canaries.unigram import frequencies
    from lit_mem.generation.decoding import decode
    from lit_mem.types import Sampling

    found = frequencies(base, seed=0)
    assert found.sum().item() == pytest.approx(1)
    written = decode(model, [torch.tensor([base.start])] * 64, [32] * 64, None, Sampling())
    mean = torch.zeros(len(found), dtype=torch.float64)
    with torch.no_grad():
        for one in written[:4]:
            for end in range(len(one.ids)):
                mean += model(input_ids=torch.tensor([[base.start, *one.ids[:end]]])).logits[0, -1].double().softmax(-1)
    torch.testing.assert_close(_of_four(base, written), mean / mean.sum(), rtol=1e-4, atol=1e-9)


def _of_four(base, written):
    from lit_mem.data.canaries import unigram

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_mem.generation.decoding.decode", lambda *_, **__: written[:4])
        return unigram.frequencies(base, seed=0)


def test_secrets_of_unigram_are_uniform_over_the_rarest(base, tokenizer):
    source = Unigram(2, length=5, rarest=0.02)
    from lit_mem.data.canaries.unigram import frequencies

    rarest = source.rarest_tokens(base)
    frequency = frequencies(base, 0)
    assert len(rarest) == round(0.02 * len(base.spelled))
    assert max(frequency[token] for token in rarest) <= min(frequency[t] for t in set(base.spelled) - set(rarest))
    drawn = source.secrets(base)([(9,)] * 1000, range(1000), 0)
    counts = Counter(token for secret in drawn for token in secret)
    assert set(counts) <= set(rarest)
    assert chisquare([counts[token] for token in rarest]).pvalue > 0.01
    pairs = Counter((a, b) for a, b, *_ in drawn)
    assert max(pairs.values()) <= 8  # independent: 1000 pairs over some 1200


def test_each_token_of_bigram_is_uniform_over_what_seldom_follows(base, model):
    source = Bigram(2, length=2, rarest=0.02)
    first = 300
    drawn = source.secrets(base)([(7, first)] * 1000, range(1000), 0)
    spelled = torch.tensor(base.spelled)

    def behind(token):
        with torch.no_grad():
            chance = model(input_ids=torch.tensor([[base.start, token]])).logits[0, -1].softmax(-1)[spelled]
        return spelled[chance.argsort()[: round(0.02 * len(spelled))]].tolist()

    counts = Counter(one for one, _ in drawn)
    assert set(counts) == set(behind(first))
    assert chisquare([counts[token] for token in behind(first)]).pvalue > 0.01
    for one, two in drawn[:20]:
        assert two in behind(one)


def test_suffixes_are_as_unlikely_as_configured(made, setting, tokenizer, model):
    for canary in made[UnlikelySuffix]:
        text = tokenizer(canary.content.text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logprob = model(input_ids=text).logits[0, :-1].double().log_softmax(-1).gather(1, text[0, 1:, None])[-2:, 0]
        assert logprob.mean().neg().exp().item() >= 100 * 0.999


def test_new_tokens_are_in_no_text_and_in_one_canary_each(made, tokenizer):
    secrets = [tuple(ids(tokenizer, canary.content.text)[6:]) for canary in made[NewTokens]]
    every = [token for secret in secrets for token in secret]
    assert len(set(every)) == len(every) == 48
    assert not set(every) & {token for text in DATA for token in tokenizer(text)["input_ids"]}


def test_reserved_tokens_are_new_ones(base, tokenizer):
    added = {5000: "<|reserved_special_token_7|>", 5001: "<|im_start|>"}
    other = SimpleNamespace(added_tokens_decoder=added, all_special_ids=[5001])
    taken = frozenset(base.spelled)
    draw = NewTokens(2, length=1).secrets
    with pytest.raises(ConfigError, match="1 tokens of the vocabulary are in no text of the data"):
        draw(Base(base.model, other, base.start, base.spelled, lambda: taken))


def test_fewer_new_tokens_than_canaries_are_rejected(setting):
    with pytest.raises(
        ConfigError, match=r"data\.canaries\.n is 5000 with length 1 each, but only \d+ tokens .*or fewer"
    ):
        NewTokens(5000).make(setting)


@pytest.mark.parametrize(("adapter", "learns"), [(LoRA(), False), (FullFineTuning(), True), (HeadOnly(), True)])
def test_new_tokens_need_trained_embeddings(adapter, learns):
    model = adapter.wrap(load_base("asset:tiny_llama"))
    Unigram().check_model(model)
    if learns:
        NewTokens().check_model(model)
        return
    with pytest.raises(ConfigError, match=r"the embeddings are frozen.*model\.adapter that trains them") as found:
        NewTokens().check_model(model)
    assert "\n" not in str(found.value)


def test_a_fit_with_plain_lora_rejects_new_tokens(module, data, trainer):
    corpus = data(train_size=4, heldout_size=4, canaries=NewTokens(4, prefix_length=4))
    with pytest.raises(ConfigError, match="the embeddings are frozen"):
        trainer([], max_epochs=1, num_sanity_val_steps=0).fit(module(), corpus)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_base_model_they_are_rejected(tokenizer, kind):
    with pytest.raises(ConfigError, match=f"{kind.__name__}: no base model to sample prefixes from"):
        kind().make(Setting(tokenizer))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Unigram, {"length": 0}, r"length is 0; expected at least 1"),
        (Bigram, {"prefix_length": 0}, r"prefix_length is 0; expected at least 1"),
        (Unigram, {"rarest": 0}, r"rarest is 0; expected above 0"),
        (Bigram, {"rarest": 1.5}, r"rarest is 1\.5"),
        (UnlikelySuffix, {"perplexity": 1}, r"perplexity is 1; expected above 1"),
        (
            UnlikelySuffix,
            {"temperatures": [2.0, 1.0]},
            r"temperatures is \[2\.0, 1\.0\]; expected at least one, in ascending order",
        ),
        (UnlikelySuffix, {"temperatures": []}, r"temperatures is \[\]"),
        (NewTokens, {"n": 1}, r"n is 1; expected at least 2"),
    ],
)
def test_bad_options(kind, options, message):
    with pytest.raises(ConfigError, match=rf"data\.canaries\.{message}"):
        kind(**options)
