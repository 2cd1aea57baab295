"""No value of a column, kind of a span, column name, person or file of persons reveals a text or a name.

All files of a fit, its console and its report are searched for every input text, by letters and digits only, with any
separators. The texts are those that a search for five words cannot find: of one to four words, of scripts without
spaces, and in columns of mixed types, where JSON escapes non-ASCII characters.
"""

import json
import logging
import re

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mem.callbacks import Extractability, MembershipInference, Movers, Perplexity, Slices, SpanExtraction
from lit_mem.data.sources.text import TextFiles
from lit_mem.errors import ConfigError
from lit_mem.functional.shown_values import revealing, shown_as
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.report.run_report import run_report

TEXTS = [
    "Zorbinitis",
    "Quelm ataxia",
    "Vekla Brunt swelling",
    "Ondrel Paxi, blue rash",
    "患者张娜服用布洛芬后出现皮疹",
    "患者王芳发热",
    "ผู้ป่วยสมหญิงมีผื่นแดง",
    "Gorvath Minelle came back with a yellow tongue on the ninth day",
    "4481203",
    "Wq",
]
PERSONS = ["Ansgar Holm", "Birte Vold", "Ceres Okafor"]
SIZES = 60, 30
PLAIN = {"F", "M", "true", "false"}


def rows(n, first=0):
    """Each text is repeated, so that columns of texts have few values, each frequent."""
    for i in range(first, first + n):
        text, other = TEXTS[i % len(TEXTS)], TEXTS[(i + 3) % len(TEXTS)]
        person = i // 2 % len(PERSONS)
        yield {
            "text": f"{text} ({i})" if i % len(TEXTS) == 7 else text,
            "sex": "FM"[i % 3 % 2],
            "again": text,
            "another's": other,
            "mixed": i % 4 if i % 2 else other,
            "listed": [text, "F"],
            "nested": {"a": [text]} if i % 2 else i % 3,
            "numbers": 4481203 + i % 3,
            TEXTS[4]: i % 2 == 0,
            "patient": person,
            "name": PERSONS[person],
            "spans": [{"type": text if i % 3 else "drug", "start": 0, "end": len(text)}],
        }


@pytest.fixture(scope="module")
def fitted(module, trainer, tmp_path_factory):
    """A fit on such rows: (its folder, all its output, names of metrics)."""
    folder = tmp_path_factory.mktemp("values")
    for name, n, first in (("train", SIZES[0], 0), ("heldout", SIZES[1], SIZES[0])):
        lines = [json.dumps(row) for row in rows(n, first)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    source = TextFiles(str(folder / "train.jsonl"), str(folder / "heldout.jsonl"), group_column="patient")
    data = TextDataModule(source, max_length=64, members_size=SIZES[0], check=True)
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("lit_mem")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    loggers = [kind(folder, name="run", version=0) for kind in (CSVLogger, TensorBoardLogger)]
    measuring = [Perplexity(), MembershipInference(plots=False), Extractability(), SpanExtraction(), Movers(fpr=0.1)]
    t = trainer([Slices(min_size=2, plots=False), *measuring], max_epochs=1, logger=loggers)
    t.fit(module(dropout=0.0), data)
    logger.removeHandler(handler)
    logger.setLevel(level)
    run = folder / "run" / "version_0"
    (run / "config.yaml").write_text("model: {model_id: asset:tiny_llama}\n")
    (run / "report.json").write_text(json.dumps(run_report(run), ensure_ascii=False, default=str))
    return run, "\n".join(lines), set(t.callback_metrics)


def letters(text):
    return re.sub(r"[\W_]+", "", text.casefold())


def within(content, sought):
    """The texts whose letters and digits occur in the content, JSON escapes included."""
    spelled = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), content)
    return {text for text in sought if any(letters(text) in letters(each) for each in (content, spelled))}


SOUGHT = [*[text for text in TEXTS if len(text) > 3], "Gorvath Minelle", "Zorbin", *PERSONS]


@pytest.mark.parametrize("text", SOUGHT)
def test_the_search_finds_a_text(text):
    for spelled in (text, json.dumps(text), text.upper().replace(" ", "_"), f"a/{text}_auroc"):
        assert text in within(f"x 1 {spelled} y", SOUGHT)


def test_no_text_and_no_person_is_in_what_a_fit_writes_and_prints(fitted):
    run, printed, names = fitted
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {".csv", ".yaml", ".json"} <= {path.suffix for path in files}
    assert any("tfevents" in path.name for path in files)
    for content in (printed, *names, *(path.read_bytes().decode("utf-8", "ignore") for path in files)):
        assert not within(content, SOUGHT)


def test_values_that_give_nothing_away_are_named_and_others_numbered(fitted):
    named = {}
    for name in fitted[2]:
        if name.startswith("slice/"):
            column, value = name.split("/")[1:3]
            named.setdefault(column, set()).add(value)
    assert named["sex"] == {"F", "M"}
    assert "patient" not in named
    assert "name" not in named
    for column in ("again", "another_s", "listed", "mixed", "nested"):
        numbered = {value for value in named[column] if re.fullmatch(r"value_\d+", value)}
        assert numbered
        assert all(value in PLAIN or re.fullmatch(r"[\d-]{1,4}", value) for value in named[column] - numbered)
    assert all(value.startswith("value_") for value in named["numbers"])
    assert any(re.fullmatch(r"column_\d+", column) for column in named)  # whose name is a text


def test_kinds_of_spans_that_are_texts_are_numbered(fitted):
    kinds = {m[1] for name in fitted[2] if (m := re.fullmatch(r"extraction/span_rate_(.+?)(_base|_heldout)*", name))}
    assert "drug" in kinds
    assert any(re.fullmatch(r"kind_\d+", kind) for kind in kinds)
    assert "No slices" in fitted[1] or "Sensitive spans of the members" in fitted[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Zorbinitis", "zorbinitis"),
        ("ZORBINITIS!", "Zorbinitis."),
        ("suspected Zorbinitis", "Zorbinitis"),
        ("Zorbin", "Zorbinitis"),
        ("Vekla Brunt", "Vekla Brunt swelling"),
        ("张娜服用", "患者张娜服用布洛芬后出现皮疹。"),
        (json.dumps("患者王芳"), "患者王芳发热"),
        (json.dumps(["x", "\U00020000\U00020001\U00020002\U00020003"]), "患\U00020000\U00020001\U00020002\U00020003病"),
        ("สมหญิงมีผื่นแดงและไข้สูงมาก", "ผู้ป่วยสมหญิงมีผื่นแดงและไข้สูงมาก"),
        (json.dumps("came with a yellow\ntongue"), "he came with a yellow\ntongue on the ninth day of it"),
        ("44812", "Record 4481203 of the ward, second page"),
        ("he came on it", "At 9 he came on it."),
        ("a b c d e", "One of the wards is a b c d e, and another one has no name at all."),
        ("back on the 9th.3 days", "He came back on the 9th, 3 days after it, and stayed"),
        ("Ｖｅｋｌａ Ｂｒｕｎｔ", "Vekla Brunt swelling"),
        ("Wq", "wq."),
        ('{"a": ["Wq"]}', "Wq"),
        ("!?", "!?"),
    ],
)  # fmt: skip
def test_a_value_that_gives_a_text_away_is_found(value, text):
    others = ["A man with a rash.", "No text"]
    assert revealing([value, "F"], [*others, text]) == {value}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("F", "F. was seen"),
        ("female", "A female patient of 60 had a rash after ibuprofen."),
        ("18-33", "He was 18, and 33 years later 1833 came"),
        ("女性", "患者女性，服用布洛芬后出现皮疹"),
        ("not known", "The cause is not known, nor is the dose that he had taken."),
        ("Adverse_event", "This is the first adverse event of its kind that was reported in a child."),
        ("Potential_therapeutic_event", "It has a potential therapeutic effect, as others have said before."),
        ("patient_sex", "We report on a patient's experience of a rash after the second dose."),
        ("10023", "It was 100 to 23 in the second half of it, and was later 1002 at 3"),
        ("", "Some text"),
        ("F", ""),
    ],
)
def test_a_value_that_says_little_is_not(value, text):
    assert revealing([value], [text]) == set()


def test_a_named_column_shows_pieces_of_texts_but_no_whole_one():
    texts = ["Mild fever.", "He was in Oslo General Hospital for a week, and left it well."]
    values = ["Mild fever", "a mild fever", "Oslo General Hospital for", "fever"]
    assert revealing(values, texts, whole=True) == {"Mild fever", "a mild fever"}
    assert revealing(values, texts) == set(values)


def test_numbers_follow_frequency_and_no_two_values_share_a_name():
    groups = [["b"]] * 3 + [["a"]] * 2 + [["c", "(value 2)"]] * 2 + [["x" * 41]] * 9
    assert shown_as(groups, hidden={"a"}, fewest=2) == {
        "x" * 41: "(value 1)", "b": "b", "(value 2)": "(value 2)", "a": "(value 4)" , "c": "c",
    }  # fmt: skip
    assert shown_as(groups, hidden={"b"}, fewest=1)["b"] == "((value 2))"


def test_a_range_of_large_numbers_and_a_rare_large_number_are_numbered():
    groups = [["1234567-1234576"]] * 5 + [["19500101-19630101"]] * 4 + [["02139"]] * 2 + [["10432"], ["97"], ["18-33"]]
    groups += [["-3 to 0.25"], ["12345 to 23456"], ["20240101"], *[["60000"]] * 3]
    shown = shown_as(groups, hidden=(), fewest=3)
    assert {value for value, name in shown.items() if value == name} == {"97", "18-33", "-3 to 0.25", "60000"}
    assert shown["1234567-1234576"] == "(value 1)"


def test_a_show_text_without_columns_is_rejected():
    with pytest.raises(ConfigError, match=r"Slices\.show_text is true without Slices\.columns"):
        Slices(show_text=True)
