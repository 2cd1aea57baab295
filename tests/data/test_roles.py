"""Which columns are guessed as texts, prompts, groups and spans, and the statistics of each column."""

import pytest
from datasets import Dataset, Features, Image, Value

from lit_mem.data.columns import Column, Lengths, columns_of
from lit_mem.data.marked import spans_option
from lit_mem.data.roles import roles_of
from lit_mem.data.sources.json_rows import row_table
from lit_mem.data.sources.table import Table
from lit_mem.data.token_lengths import token_lengths

N = 60


def roles(**columns):
    """Of N rows; a column is a list of values, or a function of the row's number."""
    filled = {name: [value(i) if callable(value) else value[i] for i in range(N)] for name, value in columns.items()}
    table = row_table("f", [dict(zip(filled, values, strict=True)) for values in zip(*filled.values(), strict=True)])
    return roles_of(table, columns_of(table))


def text(i):
    return f"a text of some words {i}"


def short(i):
    return f"v{i % 20}"


@pytest.mark.parametrize(
    ("columns", "expected", "others"),
    [
        ({"text": text}, "text", ()),
        ({"title": text, "Note": lambda i: "x " * 9}, "Note", ("title",)),  # by its name
        ({"remark": text, "history": lambda i: text(i) * 2}, "history", ("remark",)),  # the longer one
        ({"id": short, "remark": text, "label": lambda i: "yes"}, "remark", ()),
        ({"name": short}, "name", ()),  # there is nothing longer
    ],
)
def test_the_column_of_texts(columns, expected, others):
    found = roles(**columns)
    assert (found.text, found.texts, found.pair) == (expected, others, None)
    assert found.of(expected) == "text"


@pytest.mark.parametrize(
    ("columns", "prompt", "completion"),
    [
        ({"prompt": text, "completion": text}, "{prompt}\n", "{completion}"),
        ({"prompt": text, "completion": lambda i: " " + text(i)}, "{prompt}", "{completion}"),
        ({"prompt": lambda i: text(i) + "\n", "completion": text}, "{prompt}", "{completion}"),
        ({"Question": text, "Answer": text}, "Question: {Question}\nAnswer:", " {Answer}"),
        (
            {"question": text, "answer": text, "context": text},
            "Context: {context}\nQuestion: {question}\nAnswer:",
            " {answer}",
        ),
        ({"instruction": text, "output": text}, "### Instruction:\n{instruction}\n\n### Response:\n", "{output}"),
        (
            {"instruction": text, "input": lambda i: None if i else "x", "output": text},  # null cannot be filled in
            "### Instruction:\n{instruction}\n\n### Response:\n",
            "{output}",
        ),
        (
            {"output": text, "input": lambda i: "x" * (i % 2), "instruction": text},
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
            "{output}",
        ),
        ({"input": lambda i: i, "output": text}, "{input}\n", "{output}"),
        ({"article": text, "highlights": text}, "{article}\n", "{highlights}"),
    ],
)
def test_columns_that_are_known_as_prompt_and_completion(columns, prompt, completion):
    found = roles(**columns)
    assert (found.pair.prompt_template, found.pair.completion_template) == (prompt, completion)
    assert found.text is None
    assert found.of(found.pair.completion) == "completion"
    assert {found.of(name) for name in found.pair.given} == {"prompt"}


def test_a_pair_beside_whole_texts_and_one_that_cannot_be_a_template():
    found = roles(instruction=text, output=text, text=text)
    assert found.pair is not None
    assert found.texts == ("text",)
    assert roles(**{"question": text, "answer": lambda i: {"text": [text(i)]}}).text == "question"


def test_a_marked_completion_is_not_moved():
    """Spans count from the start of the completion, so there may be nothing before the column."""
    found = roles(question=text, answer=text, spans=lambda i: [{"type": "name", "start": 0, "end": 1}])
    assert found.pair.completion_template == "{answer}"
    assert found.spans == "spans"


@pytest.mark.parametrize(
    ("columns", "group", "others"),
    [
        ({"patient": short}, "patient", ()),
        ({"patientId": lambda i: i // 2}, "patientId", ()),
        ({"patient_id": lambda i: float(i // 2)}, "patient_id", ()),
        ({"patient": short, "doc_id": lambda i: i // 2}, "patient", ("doc_id",)),  # the person goes first
        ({"doc": lambda i: i // 2, "visit": lambda i: i // 6}, "visit", ("doc",)),  # the coarser one
        ({"subject": lambda i: i // 2, "user": lambda i: i // 6}, "user", ("subject",)),
        ({"source_id": lambda i: i // 2}, "source_id", ()),
        ({"id": lambda i: i}, None, ()),  # a row each
        ({"label_id": lambda i: i % 9}, None, ()),
        ({"age": lambda i: 20 + i % 30}, None, ()),
        ({"category": lambda i: f"c{i % 9}"}, None, ()),
        ({"patient": lambda i: f"p{i % 3}"}, None, ("patient",)),  # too few to split by, so a choice
        ({"town": lambda i: f"t{i // 3}"}, None, ("town",)),  # shared, and named as no group is
        ({"sex": lambda i: "MF"[i % 2]}, None, ()),
    ],
)
def test_columns_of_groups(columns, group, others):
    found = roles(text=text, **columns)
    assert (found.group, found.groups, found.unusable_groups) == (group, others, ())


@pytest.mark.parametrize("value", [lambda i: None if i == 3 else f"p{i // 2}", lambda i: i // 2 + 0.5])
def test_a_group_that_some_rows_lack_is_named_and_not_taken(value):
    found = roles(text=text, patient=value)
    assert (found.group, found.unusable_groups) == (None, ("patient",))


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def test_conversations():
    assert roles(messages=lambda i: CHAT, topic=text).chat.name == "messages"
    assert roles(messages=lambda i: CHAT, topic=text).chat.form == "conversations, lists of {role, content}"
    assert roles(messages=lambda i: CHAT, text=text).chat is None
    assert roles(messages=lambda i: CHAT, prompt=text, completion=text).pair is not None


def test_what_is_known_of_a_column():
    spans = '[{"type": "a", "start": 0, "end": 1}]'
    rows = [{"t": "a b c", "n": 1, "m": "x", "e": "", "b": True, "s": spans, "l": [1], "o": {}, "d": "1.5"}] * 3
    rows += [{"t": " ", "n": float("nan"), "m": 1, "e": None, "b": None, "s": "", "l": None, "d": "12"}]
    rows += [{"t": "皮疹 again and again", "n": 2.5, "m": True, "b": False, "s": None, "o": {"x": 1}, "d": None}]
    found = {column.name: column for column in columns_of(row_table("f", rows))}
    assert found["t"] == Column("t", "text", 1, 2, Lengths(3, 5, 5))
    assert found["n"] == Column("n", "number", 1, 2)
    assert found["d"] == Column("d", "number", 1, 2)
    kinds = {name: (column.kind, column.empty) for name, column in found.items() if name not in "tnd"}
    assert kinds == {
        "m": ("mixed", 0),
        "e": ("empty", 5),
        "b": ("true/false", 1),
        "s": ("spans", 2),
        "l": ("list", 2),
        "o": ("object", 1),
    }


def test_pictures_are_not_opened():
    dataset = Dataset.from_dict({"picture": ["no/such/file.png"] * 3}, features=Features({"picture": Image()}))
    texts = Dataset.from_dict({"text": ["a"] * 3}, features=Features({"text": Value("string")}))
    table = Table.of_dataset("f", dataset.add_column("text", texts["text"][:]))
    assert [(column.name, column.kind) for column in columns_of(table)] == [("picture", "files"), ("text", "text")]


@pytest.mark.parametrize(("length", "expected"), [(1, (1, 1, 1)), (20, (10, 19, 20)), (100, (50, 95, 100))])
def test_quantiles_of_lengths(length, expected):
    found = Lengths.of(range(length, 0, -1))
    assert (found.median, found.high, found.longest) == expected


def test_spans_count_where_each_lies_in_its_text():
    def option(marks, column="phi"):
        return spans_option(column, [marks], ["abcde"], ["text", column])

    good = {"type": "name", "start": 0, "end": 5}
    for marks in ([], None, [good], '[{"type": "a", "start": 1, "end": 2}]', ""):
        assert option(marks) == "phi"
    for wrong in ({"end": 6}, {"start": 5}, {"start": -1}, {"type": " "}, {"end": True}, {"start": None}):
        assert option([good | wrong]) == "spans"
        assert option([good | wrong], "spans") is None
    assert option("[", "spans") is None


def test_tokens_are_those_of_the_tokenizer(tokenizer):
    prompts = ["", "What came of it? ", "x"]
    completions = ["A rash.", "Fever and more.", "皮疹 " * 50]
    found = token_lengths("asset:tiny_llama", prompts, completions, add_eos=True)
    lengths = [len(tokenizer(p + c)["input_ids"]) + 1 for p, c in zip(prompts, completions, strict=True)]
    assert found.whole == Lengths.of(lengths)
    assert found.longest_prompt == len(tokenizer(prompts[1])["input_ids"])
    assert (found.counted, found.positions) == (True, 512)
    many = token_lengths("asset:tiny_llama", [""] * 9000, ["a b"] * 8999 + ["a b " * 40], add_eos=False)
    assert many.whole.longest == len(tokenizer("a b " * 40)["input_ids"])
    assert many.whole.median == len(tokenizer("a b")["input_ids"])
