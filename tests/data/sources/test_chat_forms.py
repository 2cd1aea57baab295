"""Conversations in common formats, from files of every kind."""

import csv
import json
import logging

import pytest
from datasets import Dataset

from lit_mem.data.options import DataOptions
from lit_mem.data.sources import ChatFiles, HubDataset
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.data.sources.given import Given, TwoSets
from lit_mem.data.texts import checked_texts
from lit_mem.errors import ConfigError, DataError

ASKED, SAID = "What came?", "A rash."
USER, ASSISTANT = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
SYSTEM = {"role": "system", "content": "Be brief."}
FORMS = {
    "messages": ({"messages": [USER, ASSISTANT]}, [USER, ASSISTANT]),
    "messages_elsewhere": ({"id": 3, "talk": [USER, ASSISTANT]}, [USER, ASSISTANT]),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}], "system": "Be brief."},
        [SYSTEM, USER, ASSISTANT],
    ),
    "alpaca": ({"instruction": "Read.", "input": "Case 1.", "output": SAID}, "Read.\n\nCase 1."),
    "alpaca_empty_input": ({"instruction": ASKED, "input": "", "output": SAID}, [USER, ASSISTANT]),
    "alpaca_history": (
        {"instruction": ASKED, "output": SAID, "history": [["Hello", "Good day"]]},
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}, USER, ASSISTANT],
    ),
    "dolly": ({"instruction": "Read.", "context": "Case 1.", "response": SAID}, "Read.\n\nCase 1."),
    "instruction_response": ({"instruction": ASKED, "response": SAID}, [USER, ASSISTANT]),
    "prompt_completion": ({"prompt": ASKED, "completion": SAID}, [USER, ASSISTANT]),
    "trl": ({"prompt": [SYSTEM, USER], "completion": [ASSISTANT]}, [SYSTEM, USER, ASSISTANT]),
    "question_answer": ({"question": "Read.", "context": "Case 1.", "answer": SAID}, "Read.\n\nCase 1."),
}


def messages(rows):
    return [json.loads(row) for row in rows[HELD]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_forms_are_recognised(tmp_path, caplog, form, kind):
    row, expected = FORMS[form]
    expected = [{"role": "user", "content": expected}, ASSISTANT] if isinstance(expected, str) else expected
    path = tmp_path / f"f.{kind}"
    if kind == "parquet":
        Dataset.from_list([row] * 2).to_parquet(path)
    else:
        text = json.dumps([row] * 2) if kind == "json" else "\n".join([json.dumps(row)] * 2)
        path.write_text(text)
    with caplog.at_level(logging.INFO, "lit_mem"):
        train = ChatFiles(str(path)).load().train
    assert messages(train) == [expected] * 2
    assert train["completion"][0].endswith(SAID)
    assert train["origin"][:] == [f"f.{kind}:1", f"f.{kind}:2"]
    assert any("read as conversations of form" in line and "data.source.form" in line for line in caplog.messages)


def test_messages_as_json_in_a_csv(tmp_path):
    path = tmp_path / "f.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["id", "messages"], ["1", json.dumps([USER, ASSISTANT])]])
    train = ChatFiles(str(path)).load().train
    assert messages(train) == [[USER, ASSISTANT]]
    assert train["id"][0] == "1"


def test_the_choice_can_be_set(tmp_path):
    path = tmp_path / "f.jsonl"
    row = {
        "messages": [USER, ASSISTANT],
        "other": [SYSTEM, USER, ASSISTANT],
        "prompt": "p",
        "completion": "c",
        "who": 7,
    }
    path.write_text("\n".join([json.dumps(row)] * 3))
    assert messages(ChatFiles(str(path)).load().train)[0] == [USER, ASSISTANT]
    assert messages(ChatFiles(str(path), column="other").load().train)[0] == [SYSTEM, USER, ASSISTANT]
    by_pair = ChatFiles(str(path), form="prompt_completion", group_column="who").load().train
    assert [one["content"] for one in messages(by_pair)[0]] == ["p", "c"]
    assert by_pair["group"][:] == ["7"] * 3
    with pytest.raises(ConfigError, match=r"data.source.form is 'xml'; expected one of auto, messages"):
        ChatFiles(str(path), form="xml").load()
    with pytest.raises(ConfigError, match=r"data.source.column is 'other', but data.source.form alpaca"):
        ChatFiles(str(path), form="alpaca", column="other").load()
    with pytest.raises(DataError, match=r"f.jsonl: no columns of conversations of form alpaca \(data.source.form\)"):
        ChatFiles(str(path), form="alpaca").load()
    with pytest.raises(DataError, match=r"no column 'none' \(data.source.column\)"):
        ChatFiles(str(path), column="none").load()


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"messages": [USER]}, "found no assistant message"),
        ({"messages": []}, "found no assistant message"),
        ({"messages": None}, "found nothing, expected a list"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 2: lacks content"),
        ({"messages": [{"from": "secret", "value": "secret"}]}, "found a message from somebody else"),
    ],
)
def test_bad_rows_are_one_line_with_file_and_row(tmp_path, row, found):
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"messages": [USER, ASSISTANT]}, row])))
    with pytest.raises(DataError, match=r"f.jsonl: 1 of 2 rows cannot .*: line 2, field 'messages'") as caught:
        ChatFiles(str(path), form="messages").load()
    assert found in str(caught.value)
    assert "secret" not in str(caught.value)
    kept = ChatFiles(str(path), form="messages", skip_unusable=True).load().train
    assert messages(kept) == [[USER, ASSISTANT]]
    assert kept["origin"][:] == ["f.jsonl:1"]


def test_texts_that_are_conversations_name_the_source_that_reads_them(tmp_path):
    from lit_mem.data.sources import TextFiles

    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"messages": [USER, ASSISTANT]}))
    for column in ("text", "messages"):
        with pytest.raises(DataError, match=r"'messages'.*holds conversations, .*data.source ChatFiles"):
            TextFiles(str(path), text_column=column).load()


def test_the_hub_and_rows_in_memory(tmp_path):
    row = {"conversations": [{"from": "human", "value": ASKED}, {"from": "gpt", "value": SAID}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert messages(HubDataset(str(tmp_path), chat="auto").load().train) == [[USER, ASSISTANT]]
    with pytest.raises(DataError, match=r"\(data.source.chat\)"):
        HubDataset(str(tmp_path), chat="alpaca").load()
    for rows in ([row], [[USER, ASSISTANT]], Dataset.from_list([row])):
        assert messages(Given(rows).load().train) == [[USER, ASSISTANT]]
        assert messages(TwoSets(rows, rows).load().heldout) == [[USER, ASSISTANT]]
    plain = [{"prompt": "p", "completion": "c", "who": 1}]
    assert HELD not in Given(plain).load().train.column_names
    grouped = TwoSets(plain, plain, {"group_column": "who"}).load().train
    assert (grouped["prompt"][0], grouped["group"][0]) == ("p", "1")
    chats = TwoSets(plain, plain, {"form": "prompt_completion"}).load().train
    assert [one["content"] for one in messages(chats)[0]] == ["p", "c"]


def test_tools_reach_the_template(tmp_path):
    tools = [{"type": "function", "function": {"name": "dose"}}]
    rows = [{"messages": [USER, ASSISTANT], "tools": tools}, {"messages": [USER, ASSISTANT], "tools": None}]
    train = Given(rows).load().train
    assert [json.loads(one) if one else None for one in train[TOOLS]] == [tools, None]


@pytest.mark.parametrize("tools", ["{", "1", [1], {"a": 1}])
def test_malformed_tools_are_one_line(tools):
    with pytest.raises(DataError, match=r"row 1, field 'tools': is not a list of objects"):
        Given([{"messages": [USER, ASSISTANT], "tools": tools}]).load()


def test_marks_of_pairs_go_to_their_messages():
    row = {"prompt": "Ada?", "completion": "A rash.", "spans": [[2, 6, "effect"]], "prompt_spans": [[0, 3, "name"]]}
    train = TwoSets([row], [row], {"form": "prompt_completion"}).load().train
    assert [one["spans"] for one in messages(train)[0]] == [[["name", 0, 3]], [["effect", 2, 6]]]


def test_sides_of_two_kinds_are_rejected():
    with pytest.raises(DataError, match="one set has conversations and another texts"):
        checked_texts(TwoSets([{"messages": [USER, ASSISTANT]}], ["A note."]), DataOptions(check=False))


def test_calls_without_a_content_and_roles_of_other_names():
    call = {"role": "Assistant", "tool_calls": [{"function": {"name": "dose", "arguments": "{}"}}]}
    (row,) = messages(Given([{"messages": [USER, call, {"role": "tool", "content": "1"}, ASSISTANT]}]).load().train)
    assert [one["role"] for one in row] == ["user", "assistant", "tool", "assistant"]
