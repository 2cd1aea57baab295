"""From texts to tokens, labels, scored positions and records; from examples to batches."""

import itertools
import json
from datetime import date

import pyarrow as pa
import pytest
import torch
from datasets import Dataset, Features, Image, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lit_mem.data.batching import ScoringBatches
from lit_mem.data.encoding import Encoded, Encoder, collate
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.errors import DataError
from lit_mem.functional.length_groups import length_groups
from lit_mem.models.hub import load_tokenizer


def rows(*pairs, **further):
    prompts, completions = zip(*pairs, strict=True)
    origins = [f"file:{i}" for i in range(1, len(pairs) + 1)]
    return Dataset.from_dict({"prompt": prompts, "completion": completions, "origin": origins, **further})


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
    total = sum(len(e.input_ids) for e in encode(tokenizer, ("", "word " * 50), ("", "A rash."), max_length=1000))
    lost = total - sum(len(e.input_ids) for e in examples)
    (line,) = [line for line in caplog.messages if "data.max_length=10" in line]
    assert f"1 of 2 training texts: {lost} of {total} tokens ({lost / total:.0%}".replace("%", "") in line
    assert "data.chunk" in line


def test_nothing_left_to_score_is_rejected_with_the_row(tokenizer):
    with pytest.raises(DataError, match=r"file:2: no token left to train on and score"):
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
    groups = length_groups(lengths, 32, overhead=32)
    assert len(groups) == 4  # as few as fit
    assert all(batch in groups for batches in dealt for batch in batches)
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 32 for g in groups)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(8, 80))
@settings(deadline=None)
def test_no_grouping_in_order_of_length_costs_less(lengths, budget):
    """Against all of them."""

    def cost(groups):
        return sum(len(g) * max(lengths[i] for i in g) + budget / 16 for g in groups)

    ordered = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    allowed = []
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        bounds = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(lengths)]
        groups = [ordered[a:b] for a, b in itertools.pairwise(bounds)]
        if all(len(g) == 1 or len(g) * lengths[g[0]] <= budget for g in groups):
            allowed.append(cost(groups))
    found = length_groups(lengths, budget)
    assert [i for g in found for i in g] == ordered
    assert cost(found) == pytest.approx(min(allowed))


def bytewise():
    """A tokenizer of single bytes without a BOS token: a character may be several tokens."""
    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary | {"<end>": len(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


TOKENIZERS = {"words": load_tokenizer("asset:tiny_llama"), "bytes": bytewise()}


def mark(start, end, kind="drug"):
    return {"type": kind, "start": start, "end": end}


def record(tokenizer, completion, marks=None, prompt="", max_length=64, **further):
    table = rows((prompt, completion), spans=pa.array([marks]), **further)
    (example,) = Encoder(tokenizer, max_length, True)(table, 0, True, "training")
    return example.record


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "heldout", "test"])
def test_the_tokens_of_every_bundled_span_spell_it(tokenizer, split):
    table = getattr(CaseReports().load(), split)
    examples = Encoder(tokenizer, 512, True)(table, 0, True, split)
    for row, example in zip(table, examples, strict=True):
        assert [span.kind for span in example.record.spans] == [given["type"] for given in row["spans"]]
        encoding = tokenizer(row["completion"])
        for span, given_span in zip(example.record.spans, row["spans"], strict=True):
            piece = row["completion"][given_span["start"] : given_span["end"]]
            assert piece in tokenizer.decode(example.input_ids[span.start : span.end])
            # None to spare: the first and last token are those of the first and last character.
            assert span.start == encoding.char_to_token(given_span["start"])
            assert span.end == encoding.char_to_token(given_span["end"] - 1) + 1
            assert example.scored[span.start : span.end].all()
        assert example.record.text == row["completion"]
        assert example.record.origin == row["origin"]
        assert example.record.attributes == {"id": row["id"], "sex": row["sex"], "age": float(row["age"])}


WORDS = st.text(st.sampled_from("ab z.é—漢🙂\n"), min_size=1, max_size=24)


@pytest.mark.slow
@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(
    name=st.sampled_from(sorted(TOKENIZERS)),
    prompt=st.sampled_from(["", "Of: ", "é "]),
    completion=WORDS,
    bounds=st.lists(st.tuples(st.integers(0, 23), st.integers(1, 24)), max_size=5),
    max_length=st.integers(2, 40),
)
def test_spans_are_those_of_a_map_from_characters_to_tokens(name, prompt, completion, bounds, max_length):
    tokenizer = TOKENIZERS[name]
    marks = [mark(a, b, f"{a}-{b}") for a, b in bounds if a < b <= len(completion)]
    table = rows((prompt, completion), spans=pa.array([marks], pa.list_(SPAN)))
    try:
        (example,) = Encoder(tokenizer, max_length, True)(table, 0, True, "training")
    except DataError as error:
        assert "no token left to train on" in str(error)  # noqa: PT017  (the prompt may fill max_length)
        return
    text = prompt + completion
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    tokens_of = [[t for t, (a, b) in enumerate(offsets) if a <= i < b] for i in range(len(text))]
    expected = []
    for given_span in marks:
        inside = range(len(prompt) + given_span["start"], len(prompt) + given_span["end"])
        tokens = {t for i in inside if not text[i].isspace() for t in tokens_of[i]}
        between = range(min(tokens), max(tokens) + 1) if tokens else []
        if between and all(0 < t < max_length and offsets[t][1] > len(prompt) for t in between):
            expected.append((given_span["type"], between.start, between.stop))
    assert list(example.record.spans) == expected
    assert completion.startswith(example.record.text)
    assert example.record.text
    kept = {t for t in range(len(offsets)) if t < max_length}
    reached = [i for i in range(len(text)) if kept & set(tokens_of[i])]
    if len(kept) < len(offsets):
        assert len(prompt) + len(example.record.text) == max(reached) + 1
    else:
        assert example.record.text == completion


SPAN = pa.struct([("type", pa.string()), ("start", pa.int64()), ("end", pa.int64())])


def test_the_text_ends_where_the_tokens_do(tokenizer, texts):
    table = rows(*[("", text) for text in texts])
    for max_length in (2, 7, 20):
        for text, example in zip(texts, Encoder(tokenizer, max_length, True)(table, 0, True, "training"), strict=True):
            assert example.record.text == tokenizer.decode(example.input_ids, skip_special_tokens=True)
            assert text.startswith(example.record.text)
            assert len(example.record.text) < len(text)
    given_and_scored = record(tokenizer, " Effect: rash.", prompt="Drug: ibuprofen.")
    assert given_and_scored.text == " Effect: rash."


def test_an_untruncated_text_is_whole_even_without_tokens():
    stripping = bytewise()
    stripping.backend_tokenizer.normalizer = normalizers.Strip()
    assert record(stripping, "A rash. ").text == "A rash. "
    assert record(stripping, "A rash. ", max_length=4).text == "A ra"


def test_a_span_that_is_truncated_or_first_is_skipped(tokenizer):
    text = "Ibuprofen was given, then a rash, then hives."
    marks = [mark(0, 9), mark(text.index("rash"), text.index("rash") + 4), mark(text.index("hives"), len(text) - 1)]
    ids = tokenizer(text).char_to_token(text.index("hives"))
    assert len(record(tokenizer, text, marks).spans) == 3
    # Its first token is kept and its last is not.
    assert len(record(tokenizer, text, marks, max_length=ids + 1).spans) == 2
    assert len(record(TOKENIZERS["bytes"], text, marks).spans) == 2
    assert record(TOKENIZERS["bytes"], text, marks).spans[0].start == text.index("rash")
    assert record(tokenizer, "A rash \n .", [mark(6, 9)]).spans == ()


@pytest.mark.parametrize(
    ("marks", "parts"),
    [
        ([mark(3, 3)], ["span 1", "start 3 and end 3", "<= 13"]),
        ([mark(0, 1), mark(5, 2)], ["span 2", "start 5 and end 2"]),
        ([mark(0, 14)], ["end 14", "<= 13, the characters of the completion"]),
        ([mark(-2, 3)], ["start -2"]),
        ([mark(0.5, 3.0)], ["found 0.5 as its start", "an integer"]),
        ([{"type": "drug", "start": 0}], ["found nothing as its end"]),
        ([mark("0", "3")], ["found a string as its start"]),
        ([mark(0, 3, "")], ["an empty string as its type"]),
        ([mark(0, 3, " ")], ["an empty string as its type"]),
        ([mark(0, 3, None)], ["found nothing as its type"]),
        ([mark(0, 3, 7)], ["found int as its type"]),
        (["secret"], ["span 1", "found a string", "a list of {type, start, end}"]),
        ("secret", ["found a string", "a list of {type, start, end}"]),
        ({"type": "drug"}, ["found an object"]),
        (5, ["found int"]),
        ("[" * 100_000, ["found a string"]),
        (json.dumps([mark(True, 3)]), ["found bool as its start"]),
        (json.dumps([mark(0, 3), "x"]), ["span 2", "found a string"]),
    ],
)
def test_a_malformed_span_is_rejected_with_the_row(tokenizer, marks, parts):
    table = rows(("Say: ", "A rash. Good."), ("Say: ", "A secret one."), spans=pa.array([None, marks]))
    with pytest.raises(DataError) as caught:
        Encoder(tokenizer, 64, True)(table, 0, True, "training")
    message = str(caught.value)
    assert message.startswith("file:2: field 'spans'")
    assert [part for part in parts if part not in message] == []
    assert "secret" not in message
    assert "\n" not in message
    assert len(message) < 300
    assert Encoder(tokenizer, 64, True, spans_column=None)(table, 0, True, "training")[1].record.spans == ()


def test_spans_may_be_json_or_in_another_column(tokenizer):
    marks = [mark(2, 6, "effect")]
    expected = record(tokenizer, "A rash.", marks).spans
    assert len(expected) == 1
    assert record(tokenizer, "A rash.", json.dumps(marks)).spans == expected
    assert record(tokenizer, "A rash.", [mark(2.0, 6.0, "effect")]).spans == expected
    table = rows(("", "A rash."), ("", "Hives."), ("", "Fever."), phi=pa.array([marks, [], None]), spans=["x"] * 3)
    examples = Encoder(tokenizer, 64, True, "phi")(table, 0, True, "training")
    assert [example.record.spans for example in examples] == [expected, (), ()]
    assert examples[0].record.attributes == {"spans": "x"}


def test_attributes_are_what_the_further_columns_say(tokenizer):
    table = rows(
        *[("Say: ", "A rash."), ("", "Hives.")],
        group=["g", "h"],
        word=["x", ""],
        whole=pa.array([3, None]),
        real=[0.5, float("nan")],
        flag=[True, False],
        several=[["a", "", "b"], []],
        absent=pa.array([None, None]),
        numbers=[[1, 2], [3]],
        nested=[{"a": 1}, {"a": 2}],
        day=[date(2020, 1, 1)] * 2,
        broken=pa.array([b"a", b"\xff"]).view(pa.string()),
    )
    first, second = (example.record.attributes for example in Encoder(tokenizer, 64, True)(table, 0, True, "training"))
    assert first == {"word": "x", "whole": 3.0, "real": 0.5, "flag": "true", "several": ("a", "b")}
    assert isinstance(first["whole"], float)
    assert second == {"flag": "false"}


def test_pictures_are_not_opened(tokenizer):
    picture = Dataset.from_dict({"picture": [{"bytes": b"no picture", "path": None}]}, Features({"picture": Image()}))
    table = concatenate_datasets([rows(("", "A rash.")), picture], axis=1)
    (example,) = Encoder(tokenizer, 64, True)(table, 0, True, "training")
    assert example.record.attributes == {}


def test_records_are_in_the_batch_if_every_example_has_one(tokenizer, examples):
    known = encode(tokenizer, ("", "A rash."), ("", "Hives came and went."))
    batch = collate(known)
    assert [record.text for record in batch["records"]] == ["A rash.", "Hives came and went."]
    assert "records" not in collate([*known, examples[0]])
    assert "records" not in collate(examples)
