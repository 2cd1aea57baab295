"""Spans in the formats of other programs, and marks in the text itself."""

import csv
import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.data import TextDataModule
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources import TextFiles
from lit_mem.data.span_forms import are_marks, deidentified, marks_of
from lit_mem.errors import DataError

FORMS = {
    "own": lambda marks: [{"type": t, "start": a, "end": b} for t, a, b in marks],
    "doccano labels": lambda marks: [[a, b, t] for t, a, b in marks],
    "doccano entities": lambda marks: [
        {"id": n, "label": t, "start_offset": a, "end_offset": b} for n, (t, a, b) in enumerate(marks)
    ],
    "spaCy": lambda marks: {"entities": [(a, b, t) for t, a, b in marks]},
    "spaCy ents": lambda marks: [{"start": a, "end": b, "label": t} for t, a, b in marks],
    "spaCy document": lambda marks: {"text": "x", "ents": [{"start": a, "end": b, "label": t} for t, a, b in marks]},
    "Presidio": lambda marks: [
        {"entity_type": t, "start": a, "end": b, "score": 0.85, "analysis_explanation": None} for t, a, b in marks
    ],
    "transformers": lambda marks: [
        {"entity_group": t, "score": 0.9, "word": "x", "start": a, "end": b} for t, a, b in marks
    ],
    "Label Studio": lambda marks: [{"start": a, "end": b, "text": "x", "labels": [t]} for t, a, b in marks],
    "columns": lambda marks: {
        "type": [t for t, _, _ in marks], "start": [a for _, a, _ in marks], "end": [b for _, _, b in marks],
    },
}  # fmt: skip
MARK = st.tuples(st.sampled_from(["name", "dt", "ë"]), st.integers(0, 20), st.integers(21, 40))


@settings(max_examples=20, deadline=None)
@given(marks=st.lists(MARK, max_size=4))
@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_the_same_also_as_json_and_as_arrow_keeps_it(form, marks):
    value = FORMS[form](marks)
    assert list(marks_of(value, 40, "row")) == marks
    assert list(marks_of(json.dumps(value), 40, "row")) == marks
    assert are_marks([value]) == are_marks([json.dumps(value)]) == bool(marks)
    assert are_marks([FORMS[form]([])] * 30 + [value]) == bool(marks)
    stored = datasets.Dataset.from_list([{"spans": json.dumps(value) if form in UNLIKE else value}])
    assert list(marks_of(stored["spans"][0], 40, "row")) == marks


UNLIKE = ("doccano labels", "spaCy")
"""Lists of numbers and a text, which Arrow has no type for."""


def test_rows_of_several_forms_and_several_labels():
    stored = datasets.Dataset.from_list([{"s": FORMS[form]([("x", 0, 2)])} for form in ("own", "doccano entities")])
    assert [list(marks_of(value, 9, "")) for value in stored["s"]] == [[("x", 0, 2)]] * 2
    assert list(marks_of([{"labels": ["a", "b"], "start": 0, "end": 1}], 9, "")) == [("a", 0, 1), ("b", 0, 1)]
    assert list(marks_of(None, 9, "")) == list(marks_of("", 9, "")) == list(marks_of([], 9, "")) == []


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ([[0, 5]], "span 1: found list, expected a list of"),
        ([[5, 3, "x"]], "start 5 and end 3"),
        ([["x", 0, 5]], "found int as its type"),
        ([["x", 0, "y"]], "found a string as its start"),
        ([[0, 5, None]], "found nothing as its type"),
        ([[0, 99, "x"]], "end 99"),
        ([{"label": "x", "start_offset": 0}], "found nothing as its end"),
        ({"entities": [[0, 5, "x"], 7]}, "span 2: found int"),
        ({"entities": "secret"}, "found an object"),
        ({"type": ["x"], "start": [0], "end": [1, 2]}, "found an object"),
        ([{"labels": [], "start": 0, "end": 1}], "as its type"),
        ([{"labels": ["x", 5], "start": 0, "end": 1}], "found int as its type"),
    ],
)
def test_what_is_of_no_form_is_one_line_without_text(value, part):
    with pytest.raises(DataError) as caught:
        list(marks_of(value, 9, "a.jsonl:3: field 'label'"))
    message = str(caught.value)
    assert message.startswith("a.jsonl:3: field 'label'")
    assert part in message
    assert "secret" not in message


@pytest.mark.parametrize("value", [[1, 2], [[1, 2, 3]], [], {}, "x", "[", 5, {"entities": []}, [{"role": "user"}]])
def test_what_only_looks_like_marks_is_none(value):
    assert not are_marks([value])
    assert not are_marks([FORMS["own"]([("x", 0, 5)]), value]) or value in ([], {"entities": []})


TEXTS = [f"Then Ann{n} Lee took lithium." for n in range(12)]
MARKS = [("name", 5, 13 + (n > 9)) for n in range(12)]


@pytest.mark.parametrize("form", [*FORMS])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_file_of_each_form_marks_the_same_tokens(form, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    values = [FORMS[form]([mark]) for mark in MARKS]
    if suffix == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *zip(TEXTS, map(json.dumps, values), strict=True)])
    else:
        rows = [{"text": text, "label": value} for text, value in zip(TEXTS, values, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))
    data = TextDataModule(TextFiles(str(path)), tokenizer="asset:tiny_llama", spans_column="label", check=False)
    data.setup("fit")
    for example in [*data.train, *data.heldout]:
        (span,) = example.record.spans
        assert span.kind == "name"
        said = data.tokenizer_of_texts.decode(example.input_ids[span.start : span.end]).strip()
        assert said in example.record.text
        assert said.endswith("Lee")


def test_marks_in_the_text_itself_become_pieces_and_the_text_stays(tokenizer):
    text = "Then [**Known lastname 12**] came on [**2151-7-16\n**] with [**none."
    assert [text[a:b] for _, a, b in deidentified(text)] == ["[**Known lastname 12**]", "[**2151-7-16\n**]"]
    rows = [
        {"text": f"{n} {text}", "spans": [{"type": "verb", "start": text.index("came"), "end": 40}]} for n in range(9)
    ]
    for wanted, kinds in ((True, ["verb", "deidentified", "deidentified"]), (False, ["verb"])):
        made = prepare(rows, tokenizer, DataOptions(check=False, deidentified_marks=wanted))
        for example in [*made.train, *made.heldout]:
            assert [span.kind for span in example.record.spans] == kinds
            assert example.record.text.endswith(text)
    plain = prepare([row["text"] for row in rows], tokenizer, DataOptions(check=False, deidentified_marks=True))
    assert [span.kind for span in plain.train[0].record.spans] == ["deidentified"] * 2
