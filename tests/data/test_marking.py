"""Sensitive spans: from which column, message or detector, and whether they are scored."""

import json

import pytest
from datasets import Dataset

from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.chat.messages import checked
from lit_mem.data.chat.options import Chat
from lit_mem.data.detectors import Patterns, Presidio
from lit_mem.data.encoding import Encoder
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.errors import ConfigError, DataError

NUMBERS = Patterns({"record": r"record (?P<piece>\d+)"})


def spelled(tokenizer, example, spans):
    return [(span.kind, tokenizer.decode(example.input_ids[span.start : span.end]).strip()) for span in spans]


def rows(prompt, completion, **columns):
    made = {"prompt": [prompt], "completion": [completion], "origin": ["f:1"]}
    return Dataset.from_dict(made | {name: [value] for name, value in columns.items()})


def test_pieces_of_prompts_are_kept_apart(tokenizer):
    prompt, completion = "Anna, record 6487. What came? ", "A rash, record 12."
    marked = rows(
        prompt, completion, spans=[{"type": "effect", "start": 2, "end": 6}],
        prompt_spans=[{"type": "name", "start": 0, "end": 4}],
    )  # fmt: skip
    (example,) = Encoder(tokenizer, 64, True, detector=NUMBERS)(marked, 0, True, "training")
    assert spelled(tokenizer, example, example.record.spans) == [("effect", "rash"), ("record", "12")]
    assert spelled(tokenizer, example, example.record.prompt_spans) == [("name", "Anna"), ("record", "6487")]
    assert not any(example.scored[span.start : span.end].any() for span in example.record.prompt_spans)
    assert "prompt_spans" not in example.record.attributes
    (bare,) = Encoder(tokenizer, 64, True, spans_column=None)(marked, 0, True, "training")
    assert (bare.record.spans, bare.record.prompt_spans) == ((), ())


def test_a_piece_outside_the_prompt_is_named(tokenizer):
    wrong = rows("Anna? ", "A rash.", prompt_spans=[{"type": "name", "start": 0, "end": 9}])
    with pytest.raises(DataError, match=r"^f:1: field 'prompt_spans', span 1: found start 0 and end 9, .* <= 6"):
        Encoder(tokenizer, 64, True)(wrong, 0, True, "training")


def test_what_messages_mark_and_detectors_find(tokenizer):
    talk = [
        {"role": "user", "content": " Anna, record 6487. What came?", "spans": [[1, 5, "name"]]},
        {"role": "assistant", "content": "A rash.", "spans": [{"type": "effect", "start": 2, "end": 6}]},
        {"role": "user", "content": "Whose?"},
        {"role": "assistant", "content": "That of record 12."},
    ]
    held = {HELD: [json.dumps(checked(talk, "f:1"))], TOOLS: [""], "origin": ["f:1"], "group": ["f:1"]}
    for loss in ("assistant", "all"):
        options = {"chat": Chat(loss, "asset:chatml"), "detector": NUMBERS}
        (example,) = ConversationEncoder(tokenizer, 200, **options)(Dataset.from_dict(held), 0, True, "training")
        found = [spelled(tokenizer, example, one) for one in (example.record.spans, example.record.prompt_spans)]
        answers, asked = [("effect", "rash"), ("record", "12")], [("name", "Anna"), ("record", "6487")]
        expected = [answers, asked] if loss == "assistant" else [sorted([*answers, *asked]), []]
        assert [sorted(one) for one in found] == expected
    with pytest.raises(DataError, match=r"f:1: message 2: spans, span 1: found start 0 and end 99"):
        checked([talk[0], talk[1] | {"spans": [[0, 99, "x"]]}], "f:1")


def test_pieces_are_those_of_messages_and_not_of_the_template(tokenizer):
    """A mark on a text that the template spells too, and a pattern that would run into its markers."""
    talk = [
        {"role": "user", "content": "user", "spans": [[0, 4, "name"]]},
        {"role": "assistant", "content": "a", "spans": [[0, 1, "choice"]]},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Write to u@v.org"},
    ]
    held = {HELD: [json.dumps(checked(talk, "f:1"))], TOOLS: [""], "origin": ["f:1"], "group": ["f:1"]}
    mail = Patterns({"mail": r"\S+@\S+", "word": r"\b(im_start|assistant)\b"})
    encoder = ConversationEncoder(tokenizer, 200, chat=Chat(template="asset:chatml"), detector=mail)
    (example,) = encoder(Dataset.from_dict(held), 0, True, "training")
    assert spelled(tokenizer, example, example.record.spans) == [("choice", "a"), ("mail", "u@v.org")]
    (name,) = example.record.prompt_spans
    text = tokenizer.decode(example.input_ids[: name.start])
    assert (name.kind, text.endswith("<|im_start|>user\n")) == ("name", True)


def test_the_detector_looks_at_texts_that_are_scored(tokenizer):
    looked = []

    class Counting(Patterns):
        def __call__(self, text):
            looked.append(text)
            return super().__call__(text)

    texts = [{"text": f"Case {i}: record {i}."} for i in range(40)]
    options = DataOptions(members_size=5, check=False, detector=Counting({"record": r"\d+\."}))
    found = prepare(texts, tokenizer, options)
    assert len(looked) == len(found.members) + len(found.heldout) == 5 + 8
    assert all(one.record.spans for one in [*found.members, *found.heldout])


def test_patterns_are_checked():
    with pytest.raises(ConfigError, match=r"data.detector.patterns is empty"):
        Patterns({})
    with pytest.raises(ConfigError, match=r"data.detector.patterns: mail is malformed"):
        Patterns({"mail": "("})
    assert Patterns({"nothing": "x*"})("aaa") == []


def test_presidio_finds_by_patterns_without_the_network(monkeypatch):
    pytest.importorskip("presidio_analyzer")
    monkeypatch.setattr("socket.getaddrinfo", None)
    text = "Mail a.b@example.com, SSN 536-90-4399, card 4111 1111 1111 1111. Dr. Smith."
    found = {kind: text[start:end] for kind, start, end in Presidio()(text)}
    assert found["EMAIL_ADDRESS"] == "a.b@example.com"
    assert (found["US_SSN"], found["CREDIT_CARD"]) == ("536-90-4399", "4111 1111 1111 1111")
    assert [kind for kind, *_ in Presidio(["US_SSN"])(text)] == ["US_SSN"]
    with pytest.raises(ConfigError, match=r"data.detector.entities has 'PERSON'"):
        Presidio(["PERSON"])


def test_without_presidio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(ConfigError, match=r"pip install 'lit_mem\[pii\]'"):
        Presidio()
