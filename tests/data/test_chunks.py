"""Texts longer than data.max_length: all of them is trained on and measured, each token once."""

import logging

import pytest
import torch
from datasets import Dataset, DatasetDict

from lit_mem.data.canaries import Secrets
from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.chunks import in_windows
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.remarks import on_end_tokens
from lit_mem.data.sources.given import TwoSets
from lit_mem.errors import ConfigError
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.types import IGNORED

LONG, SHORT = 30, 2
WORDS = "lithium rash fever patient dose weeks stopped recovered clinic Tuesday morning ward".split()


def note(i, n):
    return " ".join(WORDS[(i * 7 + k * (1 + i % 5)) % len(WORDS)] for k in range(n)) + f" number {i}."


def corpus(members=8, heldout=4, **columns):
    """Every second text is long."""
    texts = [note(i, LONG if i % 2 else SHORT) for i in range(members + heldout)]
    rows = [{"text": text} | {name: of(i, text) for name, of in columns.items()} for i, text in enumerate(texts)]
    sets = {"train": rows[:members], "heldout": rows[members:]}
    return DatasetDict({name: Dataset.from_list(each) for name, each in sets.items()})


def prepared(tokenizer, source=None, chunk=Chunk(16, 8), **options):  # noqa: B008  (never changed)
    options = {"max_length": 20, "check": False, "chunk": chunk} | options
    return prepare(corpus() if source is None else source, tokenizer, DataOptions(**options))


def test_each_token_of_a_document_is_trained_on_once(tokenizer):
    found, whole = prepared(tokenizer), prepared(tokenizer, chunk=None, max_length=1000)
    assert [len(one.input_ids) for one in found.members] == [len(one.input_ids) for one in whole.members]
    for text in whole.train:
        rows = [one for one in found.train if one.example_id == text.example_id]
        trained = torch.cat([one.labels[one.labels != IGNORED] for one in rows])
        assert trained.tolist() == text.input_ids[1:].tolist()  # the end-of-text token too, at the end
        long = len(text.input_ids) > 20
        assert (len(rows) > 1) == long
        ends = [tokenizer.eos_token_id in one.input_ids.tolist() for one in rows]
        assert ends == [False] * (len(rows) - 1) + [True]
        assert [one.appended for one in rows] == [0] * (len(rows) - 1) + [1]
        for one in rows:
            assert int(one.input_ids[0]) == tokenizer.bos_token_id
            assert len(one.input_ids) == (16 if long else len(text.input_ids))
            assert (one.member, one.record.origin, one.windows) == (True, text.record.origin, None)
            # Its tokens are a contiguous part of the document.
            content = " ".join(map(str, one.input_ids.tolist()[1:]))
            assert content in " ".join(map(str, text.input_ids.tolist()))


def test_a_document_is_one_example_where_it_is_scored(tokenizer):
    found, whole = prepared(tokenizer), prepared(tokenizer, chunk=None, max_length=1000)
    for mine, theirs in ((found.members, whole.members), (found.heldout, whole.heldout), (found.test, whole.test)):
        for one, other in zip(mine, theirs, strict=True):
            assert one.example_id == other.example_id
            assert torch.equal(one.input_ids, other.input_ids)
            assert torch.equal(one.scored, other.scored)
            assert (one.record.text, one.record.duplicates) == (other.record.text, other.record.duplicates)
            assert (one.windows is not None) == (len(one.input_ids) > 20)
    assert found.documents == 4
    ids = [one.example_id for one in [*found.members, *found.heldout]]
    assert len(set(ids)) == len(ids) == 12
    assert in_windows(found.members)[0].input_ids.tolist() == found.train[0].input_ids.tolist()


def test_texts_that_fit_are_as_without_it(tokenizer):
    found, whole = (prepared(tokenizer, chunk=chunk, max_length=1000) for chunk in (Chunk(16, 8), None))
    for mine, theirs in zip(found.train, whole.train, strict=True):
        assert torch.equal(mine.input_ids, theirs.input_ids)
        assert torch.equal(mine.labels, theirs.labels)
        assert mine.windows is None
    assert found.documents == 0


def test_a_prompt_is_never_trained_on(tokenizer):
    rows = [{"prompt": note(i, 25) + " ", "completion": note(i + 50, 20)} for i in range(6)]
    source = DatasetDict({"train": Dataset.from_list(rows[:4]), "heldout": Dataset.from_list(rows[4:])})
    found, whole = prepared(tokenizer, source), prepared(tokenizer, source, chunk=None, max_length=1000)
    trained = torch.cat([one.labels[one.labels != IGNORED] for one in found.train])
    assert trained.tolist() == torch.cat([one.labels[one.labels != IGNORED] for one in whole.train]).tolist()
    assert all(bool((one.labels != IGNORED).any()) for one in found.train)


def test_conversations_are_read_in_windows_too(tokenizer, caplog):
    import copy

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    rows = []
    for i in range(6):
        turns = [("user", note(i, 9)), ("assistant", note(i + 9, 12)), ("user", note(i + 3, 9)), ("assistant", "Yes.")]
        rows.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    source = TwoSets(rows[:4], rows[4:], None)
    found, whole = prepared(tokenizer, source), prepared(tokenizer, source, chunk=None, max_length=1000)
    trained = torch.cat([one.labels[one.labels != IGNORED] for one in found.train])
    assert trained.tolist() == torch.cat([one.labels[one.labels != IGNORED] for one in whole.train]).tolist()
    assert all(one.windows is not None for one in found.heldout)
    with caplog.at_level(logging.WARNING, "lit_mem"):
        prepared(tokenizer, source, chunk=None, max_length=40)
    lines = [line for line in caplog.messages if "data.max_length=40" in line]
    assert ["training conversations" in lines[0], "held-out conversations" in lines[1]] == [True, True]


def test_spans_that_no_window_holds_are_left_out_and_counted(tokenizer, caplog):
    def spans(i, text):
        words = text.split()
        places, at = [], 0
        for word in words:
            places.append({"type": "word", "start": at, "end": at + len(word)})
            at += len(word) + 1
        long = {"type": "long", "start": 0, "end": len(text)}
        return [*places, long]

    source = corpus(spans=spans)
    with caplog.at_level(logging.WARNING, "lit_mem"):
        found, whole = prepared(tokenizer, source), prepared(tokenizer, source, chunk=None, max_length=1000)
    for mine, theirs in zip(found.members, whole.members, strict=True):
        if mine.windows is None:
            assert mine.record.spans == theirs.record.spans
            continue
        # Each is in some window of the document, cut by hand: 15 tokens after the BOS, at a stride of 8.
        length = len(mine.input_ids)
        stops = [*range(16, length, 8), length]
        held = [s for s in theirs.record.spans if any(stop - 15 <= s.start and s.end <= stop for stop in stops)]
        assert list(mine.record.spans) == held
        assert 0 < len(held) < len(theirs.record.spans)
    lines = [line for line in caplog.messages if "data.chunk.stride" in line]
    lost = sum(len(b.record.spans) - len(a.record.spans) for a, b in zip(found.members, whole.members, strict=True))
    assert f"{lost} of " in lines[0]


def test_canaries_stay_whole(tokenizer):
    source = Secrets(4)
    plain = prepared(tokenizer, canary_source=source, max_length=40)
    assert len(plain.canaries) == 4
    assert all(one.windows is None for one in plain.canaries)
    copies = [one for one in plain.train if one.example_id >= 12]
    assert len(copies) == sum(one.repetitions for one in plain.canaries if one.member)
    with pytest.raises(ConfigError, match=r"data\.canaries: .* data\.max_length is 5"):
        prepared(tokenizer, canary_source=source, max_length=5, chunk=Chunk(5))


@pytest.mark.parametrize(
    ("chunk", "said"),
    [
        ({"tokens": 1}, "data.chunk.tokens is 1; expected at least 2"),
        ({"tokens": 21}, "data.chunk.tokens is 21; expected at most 20"),
        ({"stride": 0}, "data.chunk.stride is 0; expected at least 1"),
        ({"tokens": 8, "stride": 9}, "data.chunk.stride is 9; expected at most 8"),
        ({"tokens": 8.5}, "data.chunk.tokens is 8.5"),
        ({"token": 8}, "data.chunk has no option 'token'"),
        (16, "data.chunk is 16"),
    ],
)
def test_sizes_out_of_range_are_rejected(chunk, said):
    with pytest.raises(ConfigError) as error:
        TextDataModule(["a text"] * 4, max_length=20, chunk=chunk)
    assert said in str(error.value)


def test_sizes_that_are_left_out():
    assert Chunk().sizes(20) == (20, 10)
    assert Chunk(tokens=9).sizes(20) == (9, 4)
    assert Chunk(stride=20).sizes(20) == (20, 20)
    assert chunk_of({"stride": 3}) == Chunk(None, 3)
    assert chunk_of(None) is None


def test_all_texts_of_the_run_are_known_once(tokenizer):
    made = TextDataModule(corpus(), max_length=20, chunk=Chunk(16, 8), tokenizer="asset:tiny_llama", check=False)
    made.prepare_data()
    made.setup("fit")
    assert len(made.train) > len(made.members) == 8
    assert made.extent()[0] == 16  # of one forward pass
    assert len(list(made.every_text())) == 2 * 12
    assert len(made.all_texts(True)) + len(made.all_texts(False)) == 12
    batches = [batch for loader in made.val_dataloader() for batch in loader]
    assert all(batch["at_once"] == made.scoring_tokens for batch in batches)
    assert sum(len(batch["example_id"]) for batch in batches) == 12
    assert not any({"windows", "at_once"} & set(batch) for batch in made.train_dataloader())


@pytest.mark.parametrize(("chunk", "warned"), [(None, 2), (Chunk(16, 8), 0)])
def test_what_is_cut_is_a_warning_a_set(tokenizer, caplog, chunk, warned):
    with caplog.at_level(logging.WARNING, "lit_mem"):
        found = prepared(tokenizer, chunk=chunk)
        assert found.test is found.heldout
    whole = prepared(tokenizer, chunk=None, max_length=1000)
    lines = [line for line in caplog.messages if "neither trained on nor measured" in line]
    assert len(lines) == warned
    if lines:
        for line, name, all_of_it in zip(lines, ("training", "held-out"), (whole.train, whole.heldout), strict=True):
            total = sum(len(one.input_ids) for one in all_of_it)
            lost = sum(max(0, len(one.input_ids) - 20) for one in all_of_it)
            cut = sum(len(one.input_ids) > 20 for one in all_of_it)
            assert f"{cut} of {len(all_of_it)} {name} texts: {lost:,} of {total:,} tokens" in line


def test_end_tokens_are_counted_by_document(tokenizer):
    source = corpus(members=4, heldout=2)
    found = prepared(tokenizer, source)
    ends = [int(found.members[1].input_ids[20])]
    line = on_end_tokens([*found.train, *found.heldout], ends, tokenizer)
    texts = [one.input_ids[one.scored] for one in [*found.members, *found.heldout]]
    inside = sum(bool(torch.isin(own[:-1], torch.tensor(ends)).any()) for own in texts)
    assert inside > 0
    assert line.startswith(f"{inside} of 6 texts")
