"""Canaries: seeded, by their own fair coins, different from one another and from all texts of the data."""

import json
import math
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from lit_mem.data.canaries import Content, Lines, RandomTokens, Secrets, Setting, Traps
from lit_mem.data.canaries.base import CanarySource, coin
from lit_mem.data.overlap import normalized
from lit_mem.errors import ConfigError, DataError

FAST = settings(deadline=None, max_examples=40)


@pytest.fixture(scope="module")
def setting(tokenizer):
    return Setting(tokenizer)


class Numbered(CanarySource):
    """A minimal kind."""

    def contents(self, setting):
        return [Content("", f"number {i}") for i in range(self.n)]


def made(source, setting=None):
    return source.make(setting or Setting(None))


# -- coins and repetitions ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_coins_are_fair_and_each_its_own():
    """Not exactly half: the number inserted is binomial, and the coins are independent."""
    flips = [[coin(seed, i) for i in range(200)] for seed in range(1000)]
    heads = [sum(row) for row in flips]
    assert binomtest(sum(heads), 200_000).pvalue > 0.01
    assert torch.tensor(heads, dtype=torch.float64).var().item() == pytest.approx(50, rel=0.15)
    pairs = Counter(pair for row in flips for pair in zip(row[::2], row[1::2], strict=True))
    assert chisquare(list(pairs.values())).pvalue > 0.01
    assert len(pairs) == 4


@FAST
@given(st.integers(0, 10**6), st.integers(2, 60), st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_repetitions_take_turns_and_more_canaries_change_none(seed, n, repetitions):
    some, more = (made(Numbered(size, repetitions, seed)) for size in (n, n + 7))
    assert more[:n] == some
    assert [c.repetitions for c in some] == [repetitions[i % len(repetitions)] for i in range(n)]
    assert [c.inserted for c in some] == [coin(seed, i) for i in range(n)]


def test_the_default_ladder():
    assert [c.repetitions for c in made(Numbered(4, None, 0))] == [1, 4, 16, 1]


def test_another_seed_is_another_coin(setting):
    one, other = (made(Secrets(50, seed=seed), setting) for seed in (0, 1))
    assert [c.inserted for c in one] != [c.inserted for c in other]
    assert not {c.content.text for c in one} & {c.content.text for c in other}


# -- fictitious secrets----------------------------------------------------------------------------------------


def test_secrets_are_numbers_behind_words(setting):
    canaries = made(Secrets(300), setting)
    assert canaries == made(Secrets(300), setting)
    assert len({normalized(c.content.text) for c in canaries}) == 300
    for canary in canaries:
        assert re.fullmatch(r"[\d][\d -]+\d", canary.content.secret)
        assert sum(sign.isdigit() for sign in canary.content.secret) >= 8
        assert re.search(r"[A-Z][\w'-]+ [A-Z][\w'-]+", canary.content.prefix)
        assert not set("{}#") & set(canary.content.text)
    assert len({re.sub(r"\d", "#", c.content.secret) for c in canaries}) == 6
    assert canaries[6].content.origin == "canary:7"
    digits = Counter(sign for c in canaries for sign in c.content.secret if sign.isdigit())
    assert chisquare(list(digits.values())).pvalue > 0.01


def test_a_template_of_ones_own(setting):
    for canary in made(Secrets(20, templates=["My SSN is ###-##-#### for life"]), setting):
        assert canary.content.prefix == "My SSN is "
        assert re.fullmatch(r"\d{3}-\d\d-\d{4} for life", canary.content.secret)


def test_the_coin_does_not_show_in_what_a_secret_says(setting):
    """The sentence and the repetitions are drawn independently."""
    canaries = made(Secrets(3000), setting)
    for trait in (lambda c: re.sub(r"\d", "#", c.content.secret), lambda c: c.repetitions):
        inserted = Counter(trait(c) for c in canaries if c.inserted)
        all_of_them = Counter(map(trait, canaries))
        assert all(binomtest(inserted[key], n).pvalue > 0.001 for key, n in all_of_them.items())


def test_no_secret_is_a_text_of_the_data(tokenizer):
    """With four digits there are 10,000; half of those that would come are in the data, and others come instead."""
    template = ["Code ####"]
    plain = [c.content.text for c in made(Secrets(100, template), Setting(tokenizer))]
    taken = {text.upper() + "!" for text in plain[::2]}
    canaries = [c.content.text for c in made(Secrets(100, template), Setting(tokenizer, texts=sorted(taken)))]
    assert not {normalized(text) for text in canaries} & {normalized(text) for text in taken}
    assert [b for a, b in zip(plain, canaries, strict=True) if a != b] == [canaries[i] for i in range(0, 100, 2)]
    assert len(set(canaries)) == 100


def test_more_secrets_than_there_are_is_rejected(setting, monkeypatch):
    monkeypatch.setattr("random.Random.randrange", lambda self, *_: 7)
    with pytest.raises(ConfigError, match=r"data\.canaries\.n is 30, but only 1 distinct"):
        made(Secrets(30, ["Code ####"]), setting)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "data.canaries.n is 1; expected at least 2"),
        ({"seed": -1}, "data.canaries.seed is -1; expected at least 0"),
        ({"repetitions": []}, r"data.canaries.repetitions is \[\]; expected at least one number"),
        ({"repetitions": [4, 0]}, r"repetitions is \[4, 0\]"),
        ({"templates": []}, "data.canaries.templates is empty"),
        ({"templates": ["Code ###"]}, "templates has 'Code ###'; expected text followed by at least 4"),
        ({"templates": ["#### is the code"]}, "expected text"),
    ],
)
def test_bad_options_of_secrets(options, message):
    with pytest.raises(ConfigError, match=message):
        Secrets(**options)


# -- random tokens --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_random_tokens_are_plain_and_uniform(setting, tokenizer):
    canaries = made(RandomTokens(400, length=50), setting)
    assert canaries == made(RandomTokens(400, length=50), setting)
    assert {c.repetitions for c in canaries} == {1}
    counts = Counter(token for c in canaries for token in c.content.ids)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    assert special
    assert not special & set(counts)
    assert max(counts) < tokenizer.vocab_size
    plain = tokenizer.vocab_size - len([i for i in special if i < tokenizer.vocab_size])
    expected = 400 * 50 / plain
    drawn = [counts[token] for token in range(tokenizer.vocab_size) if token not in special]
    assert sum((n - expected) ** 2 / expected for n in drawn) == pytest.approx(plain, abs=5 * math.sqrt(2 * plain))
    for canary in canaries[:5]:
        assert canary.content.text == tokenizer.decode(list(canary.content.ids))
        assert len(canary.content.ids) == 50


@pytest.mark.parametrize("kind", [RandomTokens, Traps])
def test_sequences_of_three_tokens_are_rejected(kind):
    with pytest.raises(ConfigError, match=r"data\.canaries\.length is 3; expected at least 4"):
        kind(length=3)


# -- your own lines -------------------------------------------------------------------------------------------


def test_lines_of_a_file(setting, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"My line {i}\n" for i in range(30)))
    canaries = made(Lines(str(path)), setting)
    assert [c.content.text for c in canaries] == [f"My line {i}" for i in range(30)]
    assert canaries[3].content.origin == "mine.txt:4"
    some = made(Lines(str(path), n=10), setting)
    assert some == made(Lines(str(path), n=10), setting)
    texts = [c.content.text for c in some]
    assert len(set(texts)) == 10
    assert texts != sorted(texts, key=lambda text: int(text.split()[-1]))  # no first ten


def test_lines_with_templates(setting, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"who": f"P{i}", "pin": 1000 + i}) + "\n" for i in range(4)))
    canaries = made(Lines(str(path), prompt_template="PIN of {who}:", completion_template=" {pin}"), setting)
    assert canaries[1].content[:2] == ("PIN of P1:", " 1001")


def test_lines_that_repeat_or_are_in_the_data_are_rejected(tokenizer, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("The safe is open\nA secret\nthe SAFE, is open!\n")
    with pytest.raises(DataError, match=r"^mine\.txt:3: repeats mine\.txt:1, ignoring case") as repeated:
        made(Lines(str(path)), Setting(tokenizer))
    with pytest.raises(DataError, match=r"^mine\.txt:2: is a text of the data") as taken:
        made(Lines(str(path)), Setting(tokenizer, texts=["a secret."]))
    assert not any(word in str(error.value) for error in (repeated, taken) for word in ("safe", "SAFE", "secret"))


def test_fewer_lines_than_requested(setting, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("one\ntwo\nthree\n")
    with pytest.raises(ConfigError, match=r"mine\.txt has 3 rows; expected 4 or more"):
        made(Lines(str(path), n=4), setting)
    path.write_text("one\n")
    with pytest.raises(ConfigError, match="has 1 rows; expected 2 or more"):
        made(Lines(str(path)), setting)


# -- traps ----------------------------------------------------------------------------------------------------


@pytest.fixture
def trapping(tokenizer, base):
    return Setting(tokenizer, base_model=lambda: base)


def perplexity_of(base, tokenizer, ids):
    with torch.no_grad():
        ids = torch.tensor([[tokenizer.bos_token_id, *ids]])
        return math.exp(base(input_ids=ids, labels=ids).loss.item())


@pytest.mark.slow
def test_traps_fill_ranges_of_perplexity(trapping, base, tokenizer):
    options = {"n": 18, "length": 12, "perplexities": [1, 8, 64, 512], "repetitions": [1, 4, 16]}
    canaries = made(Traps(**options), trapping)
    assert canaries == made(Traps(**options), trapping)
    # As many of each range, and of each number of repetitions in each range.
    assert Counter((c.content.group, c.repetitions) for c in canaries) == {
        (f"perplexity_{ends}", n): 2 for ends in ("1-8", "8-64", "64-512") for n in (1, 4, 16)
    }
    for canary in canaries:
        low, high = map(float, canary.content.group.removeprefix("perplexity_").split("-"))
        assert low * 0.999 <= perplexity_of(base, tokenizer, canary.content.ids) < high * 1.001
        assert len(canary.content.ids) == 12
        assert not {*tokenizer.all_special_ids} & set(canary.content.ids)
        assert canary.content.text == tokenizer.decode(list(canary.content.ids))
    assert canaries != made(Traps(**options, seed=1), trapping)


def test_traps_share_few_runs_of_tokens(trapping):
    """At a low temperature most samples are near copies of a few."""
    source = Traps(8, length=12, perplexities=[1, 1e6], temperatures=[0.2])
    runs = [set(zip(ids, ids[1:], ids[2:], strict=False)) for ids in (c.content.ids for c in made(source, trapping))]
    assert max(len(a & b) / len(a | b) for i, a in enumerate(runs) for b in runs[:i]) <= 0.2


@pytest.mark.slow
def test_no_special_token_is_in_a_trap(trapping, tokenizer):
    """At a high temperature every token occurs, often also an end token among 80."""
    canaries = made(Traps(40, length=80, perplexities=[1, 1e12], temperatures=[8.0]), trapping)
    assert not {*tokenizer.all_special_ids} & {token for c in canaries for token in c.content.ids}


def test_traps_are_sampled_on_one_process(tokenizer):
    """All processes get the result of one; the others do not load the base model."""
    shared = [Content("", f"trap {i}", (5, 6, 7, 8 + i)) for i in range(4)]
    elsewhere = Setting(tokenizer, base_model=None, once=lambda compute: shared)
    assert [c.content for c in made(Traps(4, length=4), elsewhere)] == shared


def test_a_range_that_the_base_does_not_write(trapping, monkeypatch):
    monkeypatch.setattr("lit_mem.data.canaries.traps._TRIES_EACH", 32)
    message = r"in 1e\+06 to 1e\+07 only 0 of 2 traps were found among 128 sequences .*data\.canaries\.temperatures"
    with pytest.raises(ConfigError, match=message):
        made(Traps(4, length=8, perplexities=[1, 1e6, 1e7], repetitions=[1], temperatures=[0.7]), trapping)


def test_traps_need_a_base_model_and_a_first_token(setting, trapping, tokenizer):
    with pytest.raises(ConfigError, match="no base model to sample from"):
        made(Traps(4), setting)
    bare = SimpleNamespace(
        bos_token_id=None, eos_token_id=None, all_special_ids=[], added_tokens_decoder={}, vocab_size=9
    )
    with pytest.raises(ConfigError, match="neither a BOS nor an EOS token"):
        made(Traps(4), Setting(bare, base_model=trapping.base_model))


@pytest.mark.parametrize("edges", [[], [10], [0.5, 10], [10, 10], [1, 30, 10]])
def test_ranges_that_are_none(edges):
    with pytest.raises(ConfigError, match=r"data\.canaries\.perplexities is .*expected at least two ascending numbers"):
        Traps(perplexities=edges)


@pytest.mark.parametrize("temperatures", [[], [0.0], [1.0, -1.0]])
def test_temperatures_that_are_none(temperatures):
    with pytest.raises(ConfigError, match=r"data\.canaries\.temperatures(\[\d\] is .*expected above 0| is empty)"):
        Traps(temperatures=temperatures)
