import json
import logging
from pathlib import Path

import pytest

from lit_mem.data.sources.table import typed
from lit_mem.data.sources.text import TextFiles
from lit_mem.errors import ConfigError, DataError


def put(folder, name, content):
    path = folder / name
    path.write_text(content, "utf-8")
    return str(path)


def load(path, **options):
    return TextFiles(train=path, **options).load().train


def rejected(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert Path(path).name in message
    return message


def test_templates_and_groups(tmp_path):
    row = {"question": "Why {x}?", "answer": "So.", "pmid": 7, "age": 3}
    path = put(tmp_path, "a.jsonl", json.dumps(row))
    rows = load(
        path,
        prompt_template="{{Q}}: {question} ({age})\nA:",
        completion_template=" {answer}",
        group_column="pmid",
        text_column="ignored",
    )
    assert rows[0] == {
        "prompt": "{Q}: Why {x}? (3)\nA:",
        "completion": " So.",
        "group": "7",
        "origin": "a.jsonl:1",
        **row,
    }


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (
            {"prompt_template": "{q}", "completion_template": "{c}"},
            ["no column 'c'", "'q', 'a', 'g'"],
        ),
        (
            {"prompt_template": "{q}", "completion_template": "So: {a}"},
            ["line 2", "'a'", "whitespace"],
        ),
        ({"text_column": "q", "group_column": "h"}, ["no column 'h'"]),
        (
            {"text_column": "q", "group_column": "g"},
            ["line 2", "'g'", "a fractional number, expected a string or an integer"],
        ),
    ],
)
def test_bad_fields_are_named(tmp_path, options, parts):
    rows = '{"q": "x", "a": "y", "g": "1"}\n{"q": "x", "a": " ", "g": 1.5}\n'
    message = rejected(put(tmp_path, "a.jsonl", rows), **options)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"prompt_template": "{q}"}, "only prompt_template"),
        ({"completion_template": "{q}"}, "only completion_template"),
        ({"prompt_template": "{q", "completion_template": "{a}"}, "prompt_template is malformed"),
        ({"prompt_template": "", "completion_template": "{}"}, "completion_template has empty braces"),
        ({"prompt_template": "", "completion_template": "{a!r}"}, "found a format"),
        ({"prompt_template": "", "completion_template": "words"}, "has no column"),
        ({"heldout": "x.txt"}, "heldout is the same file"),
    ],
)
def test_bad_options_are_named(options, part):
    with pytest.raises(ConfigError, match=part):
        TextFiles(train="./x.txt", **options)


def test_further_columns_are_kept(tmp_path, caplog):
    rows = [
        {"text": "a", "n": 1, "mixed": 1, "tags": ["x"], "who": "me", "origin": "there"},
        {"text": "b", "n": None, "mixed": {"k": "\ud800"}, "tags": []},
    ]
    path = put(tmp_path, "a.jsonl", "\n".join(json.dumps(row) for row in rows))
    with caplog.at_level(logging.WARNING):
        made = load(path)
    assert "origin" in caplog.text
    assert list(made["n"]) == [1, None]
    assert [json.loads(value) for value in made["mixed"]] == [1, {"k": "\ud800"}]
    assert list(made["tags"]) == [["x"], []]
    assert list(made["who"]) == ["me", None]
    assert list(made["origin"]) == ["a.jsonl:1", "a.jsonl:2"]


@pytest.mark.parametrize("values", [[1, "a"], [2**70], [[1], {"a": 1}], ["\ud800"]])
def test_values_without_a_common_type_become_json(values):
    assert [json.loads(value) for value in typed(values).to_pylist()] == values
