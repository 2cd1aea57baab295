"""Which tokens of a conversation are trained on and scored, against the mask of transformers and TRL's own."""

import copy
import json
import logging

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.assets import chat_template
from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.chat.messages import checked
from lit_mem.data.chat.options import Chat
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.data.tokenized import encoded
from lit_mem.errors import ConfigError, DataError

HEADER = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
PLAIN = HEADER + "{{ m.content + '<|im_end|>' + '\n' }}{% endfor %}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CALLS = (
    HEADER
    + "{{ m.content }}{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name + c.function.arguments.drug + "
    "'</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}" + PROMPT
)
SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What came?"},
    {"role": "assistant", "content": "A rash."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "Fever, and more."},
]


@pytest.fixture(scope="module")
def real(tokenizer):
    """The bundled tokenizer with the special tokens of ChatML, as chat models have them."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def encode(rows, tokenizer, own, max_length=1000, **chat):
    made = copy.deepcopy(tokenizer)
    made.chat_template = own
    held = {HELD: [json.dumps(checked(row, "row")) for row in rows], TOOLS: [""] * len(rows)}
    origins = [f"f:{i}" for i in range(1, len(rows) + 1)]
    split = Dataset.from_dict(held | {"origin": origins, "group": origins})
    return made, ConversationEncoder(made, max_length, chat=Chat(**chat))(split, 0, True, "training")


def trained(example):
    return (example.labels != -100).tolist()


WORDS = st.text("abc ,.\n", min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.lists(WORDS, min_size=2, max_size=6), min_size=1, max_size=3))
def test_what_is_trained_on_is_the_mask_of_transformers_with_a_marked_template(real, rows):
    """The bundled template marks the assistant's turns; the same template without marks gives the same labels."""
    roles = ("user", "assistant") * 3
    rows = [[{"role": r, "content": c} for r, c in zip(roles, row, strict=False)] for row in rows]
    marked, by_mask = encode(rows, real, chat_template("chatml"))
    _, by_offsets = encode(rows, real, PLAIN + PROMPT)
    for row, one, other in zip(rows, by_mask, by_offsets, strict=True):
        whole = marked.apply_chat_template(row, return_assistant_tokens_mask=True, return_dict=True)
        assert one.input_ids.tolist() == other.input_ids.tolist() == whole["input_ids"]
        assert trained(one) == trained(other) == [bool(own) for own in whole["assistant_masks"]]
        assert one.ends == other.ends
        assert [marked.decode([t]) for t in one.input_ids[list(one.ends)]] == ["<|im_end|>"] * (len(row) // 2)


def test_the_last_turn_alone_and_all_of_it(real):
    for template in (PLAIN + PROMPT, chat_template("chatml")):
        tokenizer, (last,) = encode([SAID], real, template, loss="last")
        assert tokenizer.decode(last.input_ids[last.labels != -100]) == "Fever, and more.<|im_end|>"
        assert tokenizer.decode(last.input_ids[last.scored]) == last.record.text == "Fever, and more."
        tokenizer, (whole,) = encode([SAID], real, template, loss="all")
        assert trained(whole) == [False] + [True] * (len(whole.input_ids) - 1)
        assert tokenizer.decode(whole.input_ids[list(whole.ends)]) == "<|im_end|>\n"
        assert int(whole.scored.sum()) == len(whole.input_ids) - 1 - len(whole.ends)


def test_a_cut_conversation_counts_its_turns(real, caplog):
    _, (whole,) = encode([SAID], real, PLAIN + PROMPT)
    second = int(whole.ends[0]) + 1
    with caplog.at_level(logging.INFO, "lit_mem"):
        _, (cut,) = encode([SAID], real, PLAIN + PROMPT, max_length=second)
    assert trained(cut) == trained(whole)[:second]
    found, warned = caplog.messages
    n = len(whole.input_ids)
    assert f"1 with 2 assistant turns; {100 * sum(trained(cut)) / n:.1f} %" in found
    assert f"data.max_length={second} truncates 1 of 1 training conversations: {n - second} of {n} tokens" in warned
    assert "; 1 of 2 turns are truncated or dropped" in warned


def test_a_trainers_own_mask_is_scored_as_the_same_conversation_is(real):
    """What TRL trains on with `assistant_only_loss` is what `transformers` marks."""
    tokenizer, (mine,) = encode([SAID], real, chat_template("chatml"))
    tokenizer.eos_token = "<|im_end|>"
    whole = tokenizer.apply_chat_template(SAID, return_assistant_tokens_mask=True, return_dict=True)
    ids, mask = torch.tensor(whole["input_ids"]), torch.tensor(whole["assistant_masks"]).bool()
    theirs = encoded(ids, torch.where(mask, ids, -100), tokenizer, 0, True, "f:1")
    assert trained(theirs) == trained(mine)
    assert theirs.scored.tolist() == mine.scored.tolist()


def test_tool_calls_are_what_the_template_writes_of_them(real):
    call = {"id": "1", "type": "function", "function": {"name": "dose", "arguments": '{"drug": "aspirin"}'}}
    rows = [
        [
            {"role": "user", "content": "How much?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "100 mg"},
            {"role": "assistant", "content": "100 mg a day."},
        ]
    ]
    tokenizer, (example,) = encode(rows, real, CALLS)
    runs = tokenizer.decode(example.input_ids[example.labels != -100])
    assert runs == "<call>doseaspirin</call><|im_end|>100 mg a day.<|im_end|>"
    assert example.record.text == "<call>doseaspirin</call>\n100 mg a day."


@pytest.mark.parametrize(
    ("marked", "left_out"),
    [
        (
            "{% if loop.last and m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}",
            "1 of the 2",
        ),
        ("{% if m.role == 'user' %}{% generation %}{{ m.content }}{% endgeneration %}", "2 of the 2"),
    ],
)
def test_a_mask_that_drops_turns_is_rejected(real, marked, left_out):
    template = HEADER + marked + "{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}" + PROMPT
    with pytest.raises(DataError, match=rf"^f:1: .* misses {left_out} assistant turns") as caught:
        encode([SAID], real, template)
    assert "rash" not in str(caught.value)


def test_ends_that_are_not_learned_and_other_prompts_are_warned_of(real, caplog):
    marked = "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}"
    template = HEADER + marked + "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    with caplog.at_level(logging.WARNING, "lit_mem"):
        _, (example,) = encode([SAID], real, template + PROMPT)
    assert example.ends == ()
    assert ["2 of 2 assistant turns" in line for line in caplog.messages] == [True]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lit_mem"):
        encode([SAID], real, PLAIN)  # nothing for the turn that is to be written
        encode([SAID], real, PLAIN + PROMPT.replace("assistant", "bot"))
    assert ["In 1 of the first 1" in line for line in caplog.messages] == [True, True]


def test_calls_that_a_template_does_not_show_are_rejected_and_the_bundled_one_shows_them(real):
    call = {"function": {"name": "dose", "arguments": '{"drug": "aspirin"}'}}
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(DataError, match="does not render its tool calls"):
        encode([talk], real, PLAIN + PROMPT)
    tokenizer, (example,) = encode([talk], real, chat_template("chatml"))
    assert '"drug": "aspirin"' in tokenizer.decode(example.input_ids[example.scored])


def test_a_malformed_template_is_named_with_its_line(tmp_path, real):
    (tmp_path / "t.jinja").write_bytes("\ufeffa\n{% for m in messages %}".encode())
    with pytest.raises(ConfigError, match=r"the chat template is malformed, line 2: "):
        encode([SAID], real, None, template=str(tmp_path / "t.jinja"))


def test_options_are_checked(tmp_path, real):
    with pytest.raises(ConfigError, match=r"data.chat.loss is 'some'; expected one of assistant, last, all"):
        Chat(loss="some")
    with pytest.raises(ConfigError, match=r"data.chat.template is .*none.jinja, which cannot be read"):
        Chat(template=str(tmp_path / "none.jinja")).template_text()
    (tmp_path / "t.jinja").write_text(PLAIN + PROMPT)
    _, (by_file,) = encode([SAID], real, None, template=str(tmp_path / "t.jinja"))
    _, (by_tokenizer,) = encode([SAID], real, PLAIN + PROMPT)
    _, (bundled,) = encode([SAID], real, None, template="asset:chatml")
    assert by_file.input_ids.tolist() == by_tokenizer.input_ids.tolist() == bundled.input_ids.tolist()
    assert by_file.labels.tolist() == by_tokenizer.labels.tolist() == bundled.labels.tolist()
