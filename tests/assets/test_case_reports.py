"""The bundled corpus: reproducible, disjoint, correct spans, one distribution."""

import itertools
import json
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from lit_mem.assets import path
from lit_mem.data.canaries import names
from lit_mem.errors import ConfigError
from tools.bundled_assets import corpus, make, plans, words
from tools.bundled_assets.facts import Facts
from tools.bundled_assets.grammar import Dice, expand, parse

SPLITS = ("train", "heldout", "test")


@pytest.fixture(scope="module")
def shipped() -> dict[str, list[dict[str, Any]]]:
    return {
        split: [json.loads(line) for line in (path("case_reports") / f"{split}.jsonl").read_text("ascii").splitlines()]
        for split in SPLITS
    }


@pytest.fixture(scope="module")
def pretraining() -> list[corpus.Text]:
    training, evaluation = make.pretraining_split(seed=0)
    return training + evaluation


def records(texts: list[str]) -> set[str]:
    return {number for text in texts for number in re.findall(r"(?<!\d)\d{6}(?!\d)", text)}


def full_names(text: str, spans: list[Any]) -> set[str]:
    """Full names in one span (surnames alone are shared by many people)."""
    told = {text[s["start"] : s["end"]] for s in spans if s["type"] == "name"}
    return {name for name in told if " " in name}


@pytest.mark.parametrize("split", SPLITS)
def test_rebuilding_gives_the_shipped_bytes(split):
    made = corpus.to_jsonl(corpus.case_reports(seed=0)[split]).encode("ascii")
    assert made == (path("case_reports") / f"{split}.jsonl").read_bytes()


def test_the_notes_are_rebuilt_and_are_of_other_people(shipped):
    made = corpus.notes(seed=0)
    assert corpus.to_jsonl(made).encode("ascii") == (path("notes") / "notes.jsonl").read_bytes()
    assert len(made) == corpus.N_NOTES
    numbers = records([note["text"] for note in made])
    assert not numbers & records([row["text"] for row in itertools.chain(*shipped.values())])
    avoided = {str(patient.record) for patient in corpus.case_patients(0, sum(corpus.SPLIT_SIZES.values()))}
    assert numbers <= avoided  # so that the pretraining text has none of them
    assert 1 < len(made) / len({note["person"] for note in made}) < 1.5


def test_another_seed_gives_another_corpus():
    one, two = ({row["text"] for row in corpus.case_reports(seed, {"train": 50})["train"]} for seed in (0, 1))
    assert not one & two


def test_sizes_and_fields(shipped):
    assert {split: len(rows) for split, rows in shipped.items()} == dict(corpus.SPLIT_SIZES)
    rows = list(itertools.chain(*shipped.values()))
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["text"] for row in rows}) == len(rows)
    for row in rows:
        assert set(row) == set(corpus.Row.__annotations__)
        assert row["text"].isascii()
        assert row["sex"] in ("F", "M")
        assert 18 <= row["age"] <= 91


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(SPLITS, 2)))
def test_splits_share_nobody_and_nothing(shipped, one, two):
    a, b = shipped[one], shipped[two]
    texts_a, texts_b = [r["text"] for r in a], [r["text"] for r in b]
    assert not {r["group"] for r in a} & {r["group"] for r in b}
    assert not set(texts_a) & set(texts_b)
    assert not records(texts_a) & records(texts_b)
    names_a, names_b = (set().union(*(full_names(r["text"], r["spans"]) for r in rows)) for rows in (a, b))
    assert not names_a & names_b


@pytest.mark.slow
@pytest.mark.exhaustive
def test_pretraining_text_shares_nobody_and_nothing(shipped, pretraining):
    rows = list(itertools.chain(*shipped.values()))
    texts = [row["text"] for row in rows]
    assert not {t.text for t in pretraining} & set(texts)
    assert not records([t.text for t in pretraining]) & records(texts)
    theirs = set().union(*(full_names(row["text"], row["spans"]) for row in rows))
    assert not theirs & set().union(*(full_names(t.text, t.spans) for t in pretraining))


def test_one_record_number_per_group(shipped):
    for row in itertools.chain(*shipped.values()):
        assert records([row["text"]]) == {row["group"].removeprefix("patient-")}


def test_spans_point_at_what_they_say(shipped):
    effects = {effect.lstrip("*") for effect in words.EFFECTS}
    drugs = {name.lstrip("*") for group in words.DRUG_CLASSES for name, _ in group.drugs}
    first = {*names.FIRST_NAMES["F"], *names.FIRST_NAMES["M"]}
    checks = {
        "record": lambda piece, row: piece == "MR-" + row["group"].removeprefix("patient-"),
        "age": lambda piece, row: piece == str(row["age"]),
        "drug": lambda piece, row: piece[0].lower() + piece[1:] in drugs,
        "effect": lambda piece, row: bool({piece, piece[0].lower() + piece[1:]} & effects),
        "date": lambda piece, row: re.fullmatch(r"\d{1,2} [A-Z]\w+ \d{4}|\d{4}-\d\d-\d\d", piece),
        "name": lambda piece, row: set(piece.split()) <= first.union(names.LAST_NAMES),
    }
    for row in itertools.chain(*shipped.values()):
        for span in row["spans"]:
            piece = row["text"][span["start"] : span["end"]]
            assert checks[span["type"]](piece, row), (piece, row)
        assert {"name", "record", "age", "drug", "effect"} <= {s["type"] for s in row["spans"]}


def test_secrets_are_in_the_second_half_too(shipped):
    rows = list(itertools.chain(*shipped.values()))
    for kind in ("name", "record", "date"):
        late = [any(s["type"] == kind and 2 * s["start"] > len(row["text"]) for s in row["spans"]) for row in rows]
        assert np.mean(late) > 0.2, kind


@pytest.mark.slow
def test_text_alone_does_not_separate_members_from_heldout(shipped):
    rows = shipped["train"] + shipped["heldout"]
    member = np.array([1] * len(shipped["train"]) + [0] * len(shipped["heldout"]))
    classifier = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+"),
        LogisticRegression(max_iter=200, solver="liblinear"),
    )
    score = cross_val_predict(
        classifier,
        [row["text"] for row in rows],
        member,
        groups=[row["group"] for row in rows],
        cv=GroupKFold(5, shuffle=True, random_state=0),
        method="decision_function",
    )
    assert roc_auc_score(member, score) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("plan", plans.SHARED + plans.SPECIAL)
def test_case_report_plans_name_the_patient_and_the_record(plan):
    for seed in range(8):
        skeleton = expand(parse(plan), Dice(random.Random(seed)))
        assert "{rec}" in skeleton
        assert "{name}" in skeleton or "{Name}" in skeleton or "{last}" in skeleton


@given(st.integers(0, 2**32), st.sampled_from(["case", "pretraining"]))
def test_any_seed_writes_a_clean_text(seed, style):
    rng = random.Random(seed)
    text = corpus.write(corpus.draw_patient(rng), style, rng)
    assert text.text.isascii()
    assert not re.search(r"[{}\[\]|*]|  | [.,;:]|\ba (8\d|18)\b|\ban (?!8|18)\d", text.text)
    assert text.text == text.text.strip()
    assert text.nats > 0
    for one, two in itertools.pairwise(text.spans):
        assert one["start"] < one["end"] <= two["start"]


def test_equal_chances_give_their_entropy():
    # {age} alone: 74 ages, one number.
    patient = corpus.draw_patient(random.Random(0))
    dice = Dice(random.Random(0))
    facts = Facts(patient, "case", dice)
    assert facts.slot("age") == facts.slot("Age") == str(patient.age)
    assert dice.nats == pytest.approx(np.log(74))


@pytest.mark.parametrize("plan", ["a[b", "a]b", "a|b", "[a]]"])
def test_a_broken_plan_is_rejected(plan):
    with pytest.raises(ValueError, match="plan"):
        parse(plan)


def test_an_unknown_slot_is_rejected():
    rng = random.Random(0)
    with pytest.raises(ValueError, match="shoe size"):
        Facts(corpus.draw_patient(rng), "case", Dice(rng)).slot("shoe size")


def test_an_unknown_asset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="case_reports, notes, tiny_llama"):
        path("huge_llama")
