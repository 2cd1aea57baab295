"""Rows per group: counted over all rows, and kept with each example in memory only."""

import json
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.data.canaries import Secrets
from lit_mem.data.groups import Groups
from lit_mem.data.one_set import encoded_set
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources.given import TwoSets

PEOPLE = ["ann", "ann", "bob", "ann", "cy", "bob"]
OPTIONS = DataOptions(check=False, max_length=32)


def rows(people, name="a"):
    return [{"text": f"Patient {i} of set {name} took drug {i}.", "group": p} for i, p in enumerate(people)]


@given(st.lists(st.sampled_from("abcdef")), st.lists(st.sampled_from("uvwxyz")))
def test_counts_are_those_of_a_counter_where_any_is_above_one(members, others):
    made = Groups.of(members, others)
    several = len(set(members)) < len(members) or len(set(others)) < len(others)
    assert made.shared == several
    assert (made.members, made.others) == ((Counter(members), Counter(others)) if several else ({}, {}))
    assert Groups.of(Counter(members), Counter(others)) == made


@pytest.mark.parametrize("form", ["rows", "dataset", "file", "fields", "chat", "pairs"])
def test_each_record_has_the_group_of_its_row(tokenizer, tmp_path, form):
    members, heldout = rows(PEOPLE), rows(["dan", "eve", "eve"], "b")
    fields = None
    if form == "dataset":
        members, heldout = Dataset.from_list(members), Dataset.from_list(heldout)
    elif form == "file":
        for name, made in (("m", members), ("h", heldout)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, made)))
        members, heldout = tmp_path / "m.jsonl", tmp_path / "h.jsonl"
    elif form == "fields":
        fields = {"text_column": "note", "group_column": "who"}
        members, heldout = ([{"note": r["text"], "who": r["group"]} for r in one] for one in (members, heldout))
    elif form == "pairs":
        pair = [
            [{"prompt": "Note: ", "completion": r["text"], "group": r["group"]} for r in one]
            for one in (members, heldout)
        ]
        members, heldout = pair
    elif form == "chat":
        tokenizer = _talking(tokenizer)
        talks = [
            [{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": r["text"]}],
              "group": r["group"]} for r in one]
            for one in (members, heldout)
        ]  # fmt: skip
        members, heldout = talks
    found = prepare(TwoSets(members, heldout, fields), tokenizer, OPTIONS)
    assert [one.record.group for one in found.train] == PEOPLE
    assert [one.record.group for one in found.heldout] == ["dan", "eve", "eve"]
    assert found.texts.groups() == Groups(Counter(PEOPLE), Counter(dan=1, eve=2))
    assert not any("group" in one.record.attributes for one in found.train)


def _talking(tokenizer):
    import copy

    made = copy.deepcopy(tokenizer)
    made.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {% generation %}{{ m['content'] }}{% endgeneration %}\n{% endfor %}"
    )
    return made


def test_without_a_group_column_each_row_is_its_own(tokenizer):
    plain = [[row["text"] for row in rows(people, name)] for people, name in ((PEOPLE, "a"), (["d"], "b"))]
    found = prepare(TwoSets(*plain), tokenizer, OPTIONS)
    assert [one.record.group for one in found.train] == [one.record.origin for one in found.train]
    assert not found.texts.groups().shared


def test_canaries_are_nobodys(tokenizer):
    options = DataOptions(check=False, max_length=64, canary_source=Secrets(6))
    found = prepare(TwoSets(rows(PEOPLE), rows(["dan"], "b")), tokenizer, options)
    assert {one.record.group for one in found.canaries} == {""}


def test_of_a_sample_all_rows_are_counted(tokenizer):
    counted = Counter()
    found = encoded_set(rows(PEOPLE), "members", tokenizer, OPTIONS, 2, True, 0, counted=counted)
    assert len(found) == 2
    assert counted == Counter(PEOPLE)


def test_test_texts_take_the_place_of_held_out_ones(data):
    corpus = data(tokenizer="asset:tiny_llama", train_size=None, heldout_size=None)
    assert corpus.groups() is None
    corpus.setup("test")
    texts = corpus._prepared.texts
    assert corpus.groups() == Groups.of(texts.train["group"], texts.heldout["group"])
    assert texts.groups(test=True).others == Counter(texts.test["group"][:])
    assert corpus.largest_group == max(Counter(texts.train["group"][:]).values()) == 3
