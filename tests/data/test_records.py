"""The record of each example, and that it is passed on unchanged."""

import logging
import pickle
import re
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities import move_data_to_device

from lit_mem.data.deduplicate import count_duplicates
from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.errors import ConfigError
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.types import Record, Span

TINY = "asset:tiny_llama"


class Given(Source):
    """Texts as they are given."""

    def __init__(self, train, heldout, test=None, **further):
        self.sets = (train, heldout, test)
        self.further = further

    def load(self):
        def split(texts, name):
            if texts is None:
                return None
            origins = [f"{name}:{n}" for n in range(len(texts))]
            columns = {"prompt": [""] * len(texts), "completion": texts, "group": origins, "origin": origins}
            return Dataset.from_dict(columns | {k: [v] * len(texts) for k, v in self.further.items()})

        train, heldout, test = (split(*pair) for pair in zip(self.sets, ("train", "heldout", "test"), strict=True))
        return Corpus(train, heldout, test, "given")


def over(source, **options):
    data = TextDataModule(source, tokenizer=TINY, **({"check": False} | options))
    data.setup("fit")
    data.setup("test")
    return data


def said(record):
    return {name: getattr(record, name) for name in Record.__slots__}


@pytest.fixture(scope="module")
def bundled(data):
    module = data(tokenizer=TINY, max_length=32)
    module.setup("fit")
    module.setup("test")
    return module


TRAIN = ["Fever.", "A rash, at once.", "fever", "FEVER !", "a rash at  once", "No event."]
HELDOUT = ["Fever?", "A rash at once", "Something else."]
TEST = ["no event", "fever", "Another thing."]


def test_duplicates_are_other_members_with_the_same_words():
    data = over(Given(TRAIN, HELDOUT, TEST), members_size=2)

    def words(text):
        return re.findall(r"\w+", text.lower())

    for examples, texts in ((data.train, TRAIN), (data.heldout, HELDOUT), (data.test, TEST)):
        for i, (example, text) in enumerate(zip(examples, texts, strict=True)):
            others = [other for j, other in enumerate(TRAIN) if examples is not data.train or j != i]
            assert example.record.duplicates == sum(words(other) == words(text) for other in others)
    assert [example.record.duplicates for example in data.train] == [2, 1, 2, 2, 1, 0]
    assert [example.record.duplicates for example in data.heldout] == [3, 2, 0]
    assert [example.record.duplicates for example in data.test] == [1, 3, 0]
    # The probe shows the records of the training set.
    of_train = {example.example_id: said(example.record) for example in data.train}
    assert all(said(example.record) == of_train[example.example_id] for example in data.members)


def test_held_out_texts_that_serve_as_the_test_keep_their_duplicates():
    data = over(Given(TRAIN, HELDOUT))
    assert [example.record.duplicates for example in data.test] == [3, 2, 0]


@settings(deadline=None)
@given(texts=st.lists(st.sampled_from(["a", "A!", "b", "?", "b c"]), min_size=1), n_members=st.integers(0, 9))
def test_duplicates_by_a_double_loop(texts, n_members):
    ids = torch.zeros(2, dtype=torch.int64)
    examples = [Encoded(ids, ids, i, i < n_members, record=Record(text)) for i, text in enumerate(texts)]
    members = [example for example in examples if example.member]
    count_duplicates(examples, members)
    for example in examples:
        same = [
            other
            for other in members
            if other is not example and other.record.text.lower().strip("!") == example.record.text.lower().strip("!")
        ]
        assert example.record.duplicates == len(same)


def test_texts_cut_to_the_same_beginning_are_duplicates():
    """What follows is neither trained on nor scored."""
    start = "The patient was given the drug and had a rash after "
    data = over(Given([start + "two days.", start + "a week."], ["Fever."]), max_length=8)
    assert [example.record.duplicates for example in data.train] == [1, 1]
    assert start.startswith(data.train[0].record.text)


def test_texts_are_the_probe_and_the_held_out_set(bundled):
    members, heldout = bundled.texts(member=True), bundled.texts(member=False)
    assert list(members) == [example.example_id for example in bundled.members]
    assert list(heldout) == [example.example_id for example in bundled.heldout]
    assert not members.keys() & heldout.keys()
    for batch in [batch for loader in bundled.val_dataloader() for batch in loader]:
        for row, example_id in enumerate(batch["example_id"].tolist()):
            ids = (members if batch["member"][row] else heldout)[example_id]
            assert batch["input_ids"][row, : len(ids)].tolist() == ids.tolist()
            assert (batch["labels"][row, len(ids) :] == -100).all()


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_has_all_texts(data, rank):
    module = data(tokenizer=TINY, scoring_tokens=256)
    module.trainer = SimpleNamespace(world_size=2, global_rank=rank, testing=False)
    module.setup("fit")
    dealt = {i for loader in module.val_dataloader() for batch in loader for i in batch["example_id"].tolist()}
    every = module.texts(member=True).keys() | module.texts(member=False).keys()
    assert dealt < every
    assert len(every) == 40


def test_all_texts_are_those_that_are_not_scored_too(data):
    module = data(tokenizer=TINY, members_size=5)
    module.setup("fit")
    members, heldout = module.all_texts(member=True), module.all_texts(member=False)
    assert list(members) == [one.record.prompt + one.record.text for one in module.train]
    assert (len(members), len(module.members), len(heldout)) == (24, 5, 20)
    assert module.train[7].record.text in members
    assert module.train[7].record.text not in heldout
    assert len(TextDataModule(Given(["a"], ["b"])).all_texts(member=True)) == 0


def test_while_testing_the_test_texts_are_the_held_out_ones(data):
    module = data(tokenizer=TINY)
    module.trainer = SimpleNamespace(world_size=1, global_rank=0, testing=True)
    module.setup("test")
    assert list(module.texts(member=False)) == [example.example_id for example in module.test]
    assert not set(module.texts(member=False)) & {example.example_id for example in module.heldout}
    assert TextDataModule(Given(["a"], ["b"])).texts(member=True) == {}


def test_another_column_of_spans_is_read_or_missed():
    source = Given(["A rash came."], ["Fever came."], phi=[{"type": "effect", "start": 2, "end": 5}])
    data = over(source, spans_column="phi")
    assert [span.kind for span in data.train[0].record.spans] == ["effect"]
    assert over(source).train[0].record.spans == ()
    with pytest.raises(ConfigError, match=r"data.spans_column is 'pii', but given has no such column; .*'phi'"):
        over(source, spans_column="pii")
    assert over(Given(["A rash."], ["Fever."]), spans_column=None).train[0].record.spans == ()


def test_records_survive_a_move_between_devices(bundled):
    batch = collate(bundled.train[:4])
    moved = move_data_to_device(batch, torch.device("meta"))
    assert moved["input_ids"].is_meta
    assert all(a is b for a, b in zip(moved["records"], batch["records"], strict=True))


def test_records_survive_pickling(bundled):
    before = [said(example.record) for example in bundled.train]
    assert any(record["spans"] for record in before)
    assert all(record["attributes"] for record in before)
    copies = pickle.loads(pickle.dumps(collate(bundled.train)))["records"]
    assert [said(record) for record in copies] == before
    assert all(type(span) is Span for record in copies for span in record.spans)


def test_workers_hand_on_the_same_records(bundled, data):
    other = data(tokenizer=TINY, max_length=32, num_workers=1)
    other.setup("fit")
    pairs = [(bundled.train_dataloader(), other.train_dataloader())]
    pairs += list(zip(bundled.val_dataloader(), other.val_dataloader(), strict=True))
    for here, there in pairs:
        for mine, theirs in zip(here, there, strict=True):
            assert torch.equal(mine["example_id"], theirs["example_id"])
            assert [said(record) for record in mine["records"]] == [said(record) for record in theirs["records"]]


def test_no_text_is_logged_or_shown(caplog):
    logging.getLogger("lit_mem").propagate = True
    with caplog.at_level(logging.DEBUG):
        data = over(Given(["A secret rash. " * 20], ["Secret fever."]), max_length=8, check=True)
    assert "neither trained on nor measured" in caplog.text
    assert "ecret" not in caplog.text
    assert "ecret" not in repr(collate(data.train))
