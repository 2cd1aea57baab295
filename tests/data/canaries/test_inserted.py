"""Canaries among the texts: what is trained on, what is scored, and that no other set changes."""

import logging
from collections import Counter

import pytest
import torch

from lit_mem.data.canaries import Canary, Content, RandomTokens, Secrets, Setting, Traps
from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.canaries.encoding import SECRET, copies, encoded
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError
from lit_mem.types import IGNORED, holds_canaries


def secrets(tokenizer, n=12, **options):
    made = Secrets(n).make(Setting(tokenizer))
    return made, encoded(made, tokenizer, **({"max_length": 128, "add_eos": True, "first_id": 70} | options)).scored


# -- encoding ----------------------------------------------------------------------------------------------------


def test_of_a_text_with_a_prefix_the_suffix_is_scored(tokenizer):
    made, examples = secrets(tokenizer)
    assert [e.example_id for e in examples] == list(range(70, 82))
    for canary, example in zip(made, examples, strict=True):
        ids = tokenizer(canary.content.text)["input_ids"]
        assert example.input_ids.tolist() == [*ids, tokenizer.eos_token_id]
        assert tokenizer.decode(example.input_ids[example.scored]).strip() == canary.content.secret
        (span,) = example.record.spans
        assert example.scored.nonzero().flatten().tolist() == list(range(span.start, span.end))
        assert span.kind == SECRET
        assert (example.member, example.repetitions) == (canary.inserted, canary.repetitions)
        assert example.record.attributes == {"repetitions": canary.repetitions}


def test_of_one_without_a_prefix_all_is_scored_and_the_second_half_is_the_secret(tokenizer):
    (example,) = encoded([Canary(Content("", "One line of mine."), 2, True)], tokenizer, 64, True, 0).scored
    scored = example.scored.nonzero().flatten().tolist()
    assert scored == list(range(1, len(example.input_ids) - 1))
    (span,) = example.record.spans
    assert list(range(span.start, span.end)) == scored[len(scored) // 2 :]


@pytest.mark.parametrize("add_eos", [True, False])
def test_tokens_are_taken_as_they_are(tokenizer, add_eos):
    """Their text may tokenize differently; BOS and end-of-text tokens are as those of texts."""
    made = RandomTokens(6, length=9).make(Setting(tokenizer))
    for canary, example in zip(made, encoded(made, tokenizer, 64, add_eos, 0).scored, strict=True):
        of_a_text = tokenizer("Fever.")["input_ids"]
        start = of_a_text[:1] if of_a_text[0] == tokenizer.bos_token_id else []
        end = [tokenizer.eos_token_id] if add_eos else []
        assert example.input_ids.tolist() == [*start, *canary.content.ids, *end]
        assert example.scored.sum() == 9
        assert example.appended == add_eos


class Bare:
    """A tokenizer without a BOS token, as SmolLM2's."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text):
        return {"input_ids": [7, 8]}


def test_a_tokenizer_that_puts_nothing_in_front():
    (example,) = encoded([Canary(Content("", "x", (5, 6, 7, 8)), 1, False)], Bare(), 64, True, 0).scored
    assert example.input_ids.tolist() == [5, 6, 7, 8, 2]
    assert example.scored.tolist() == [False, True, True, True, False]


def test_groups_are_reported(tokenizer):
    canary = Canary(Content("", "x", (5, 6, 7, 8), group="perplexity_1-10"), 1, False)
    (example,) = encoded([canary], tokenizer, 64, True, 0).scored
    assert example.record.attributes == {"repetitions": 1.0, "group": "perplexity_1-10"}


def test_one_that_would_be_cut_is_rejected(tokenizer):
    cut = (
        r"data\.canaries: 12 of 12 canaries would be truncated: the longest has \d\d tokens, but data\.max_length is 12"
    )
    with pytest.raises(ConfigError, match=cut) as error:
        secrets(tokenizer, max_length=12)
    assert "number" not in str(error.value)


def test_what_is_trained_on_is_the_whole_text_as_often_as_asked(tokenizer):
    made, examples = secrets(tokenizer)
    inserted = copies(encoded(made, tokenizer, 128, True, 70))
    assert Counter(e.example_id for e in inserted) == {e.example_id: e.repetitions for e in examples if e.member}
    for copy in inserted:
        assert copy.labels.tolist() == [IGNORED, *copy.input_ids[1:].tolist()]
        assert copy.member
    assert not holds_canaries(collate(inserted))


def test_a_batch_of_canaries_says_so(tokenizer, examples):
    _, canaries = secrets(tokenizer)
    batch = collate(canaries)
    assert holds_canaries(batch)
    assert batch["canary"].tolist() == [1, 4, 16] * 4
    assert not holds_canaries(collate(examples))
    assert not any(map(holds_canaries, [collate([*canaries, *examples]), torch.zeros(3), (1, 2), None]))


# -- in the data module -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(data, tokenizer):
    """The same data without canaries and with some."""
    made = []
    for canaries in (None, Secrets(30, seed=5)):
        corpus = data(canaries=canaries, tokenizer="asset:tiny_llama", members_size=10)
        corpus.setup("fit")
        corpus.setup("test")
        made.append(corpus)
    return made


def same(left, right):
    return len(left) == len(right) and all(
        torch.equal(a.input_ids, b.input_ids)
        and torch.equal(a.labels, b.labels)
        and (a.example_id, a.member, a.appended, a.record.duplicates, a.record.text)
        == (b.example_id, b.member, b.appended, b.record.duplicates, b.record.text)
        for a, b in zip(left, right, strict=True)
    )


def test_no_other_set_changes(pair):
    without, with_canaries = pair
    n = len(without.train)
    assert same(with_canaries.train[:n], without.train)
    for name in ("members", "heldout", "test"):
        assert same(getattr(with_canaries, name), getattr(without, name))
    for member in (True, False):
        left, right = (corpus.texts(member) for corpus in pair)
        assert left.keys() == right.keys()
        left, right = (corpus.all_texts(member) for corpus in pair)
        assert list(left) == list(right)


def test_the_training_set_has_the_inserted_ones_and_no_other(pair):
    without, corpus = pair
    inserted = corpus.train[len(without.train) :]
    assert Counter(e.example_id for e in inserted) == {e.example_id: e.repetitions for e in corpus.canaries if e.member}
    assert 0 < sum(e.member for e in corpus.canaries) < 30
    batches = list(corpus.train_dataloader())
    assert sum(len(batch["example_id"]) for batch in batches) == len(corpus.train)
    assert not any(map(holds_canaries, batches))


def test_their_ids_are_those_of_no_text(pair):
    _, corpus = pair
    ids = {e.example_id for e in corpus.canaries}
    assert len(ids) == 30
    assert not ids & {e.example_id for e in [*corpus.train[:24], *corpus.heldout, *corpus.test]}


@pytest.mark.parametrize("stage", ["val", "test"])
def test_they_are_scored_in_a_loader_of_their_own(pair, stage):
    without, with_canaries = (list(getattr(corpus, f"{stage}_dataloader")()) for corpus in pair)
    assert (len(without), len(with_canaries)) == (2, 3)
    for left, right in zip(without, with_canaries, strict=False):
        for one, other in zip(left, right, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in ("input_ids", "scored", "example_id", "member"))
            assert not holds_canaries(other)
    scored = list(with_canaries[2])
    assert all(map(holds_canaries, scored))
    assert sorted(i for batch in scored for i in batch["example_id"].tolist()) == [
        e.example_id for e in pair[1].canaries
    ]


def test_the_log_says_how_many(pair, data, caplog):
    with caplog.at_level(logging.INFO, logger="lit_mem"):
        corpus = data(canaries=Secrets(30, seed=5), tokenizer="asset:tiny_llama", check=True)
        corpus.setup("fit")
    assert torch.equal(corpus.canaries[3].input_ids, pair[1].canaries[3].input_ids)
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Canaries")]
    inserted = [e for e in corpus.canaries if e.member]
    counts = Counter(e.repetitions for e in inserted)
    assert line == (
        f"Canaries: {len(inserted)} of 30 are inserted, by fair coins ({counts[1]} 1-fold, {counts[4]} 4-fold, "
        f"{counts[16]} 16-fold): {sum(e.repetitions for e in inserted)} of {len(corpus.train)} training rows. Other "
        "metrics exclude them."
    )
    # The data checks only cover the texts.
    assert any("Members: 24 rows" in r.getMessage() for r in caplog.records)
    assert not any(e.record.text in r.getMessage() for r in caplog.records for e in corpus.canaries)


class Telltale(CanarySource):
    """Keeps what it is given."""

    def contents(self, setting):
        self.setting = setting
        return [Content("", f"made up text number {i}") for i in range(self.n)]


def test_the_canary_source_gets_all_sets_of_the_data(data):
    source = Telltale(4, [1], 0)
    corpus = data(canaries=source, tokenizer="asset:tiny_llama", max_length=256)
    corpus.setup("fit")
    corpus.setup("test")
    texts = {e.record.text for e in [*corpus.train[:24], *corpus.heldout, *corpus.test]}
    assert texts <= set(source.setting.texts)
    assert source.setting.base_model is None


class Drawing(Telltale):
    """Draws from the global generator, as loading a model may."""

    def contents(self, setting):
        torch.rand(5)
        return super().contents(setting)


def test_the_random_state_is_left_alone(data):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    data(canaries=Drawing(4, [1], 0), tokenizer="asset:tiny_llama").setup("fit")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_traps_are_sampled_from_the_base_that_is_trained(module, data, trainer):
    t, model, source = (
        trainer([], limit_val_batches=0, num_sanity_val_steps=0, max_epochs=1),
        module(),
        Traps(4, 8, [1, 1e6]),
    )
    corpus = data(train_size=6, canaries=source)
    t.fit(model, corpus)
    alone = source.make(Setting(model.tokenizer, base_model=model.fresh_base))
    found = [tuple(e.input_ids[1:-1].tolist()) for e in corpus.canaries]
    assert found == [canary.content.ids for canary in alone]
    assert model.fresh_base() is not model.fresh_base()
    assert not any(p.requires_grad for p in model.fresh_base().parameters())
