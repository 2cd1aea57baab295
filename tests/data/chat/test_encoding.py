"""Conversations: positions of the assistant's contents in the rendered text, and which tokens are scored."""

import copy
import json
import logging

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.chat.messages import checked
from lit_mem.data.chat.options import Chat
from lit_mem.data.chat.template import ChatTemplate
from lit_mem.data.chat.turns import TurnFinder
from lit_mem.data.encoding import Encoder, collate
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.errors import DataError

HEADER = "{% for m in messages %}"
GENERATION = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TEMPLATES = {
    "chatml": HEADER + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}" + GENERATION,
    "default_system": "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    + HEADER
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    + GENERATION,
    "llama2": "{{ bos_token }}"
    + HEADER
    + "{% if m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}"
    "{% elif m.role == 'user' %}{{ '[INST] ' + m.content | trim + ' [/INST]' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}",
    "no_system": HEADER
    + "{% if m.role != 'system' %}{{ '<' + m.role + '>' + m.content + '</' + m.role + '>' }}{% endif %}{% endfor %}",
    # The last turn has an extra block, which disappears once another turn follows, as in Qwen3.
    "last_differs": HEADER
    + "{{ '<|im_start|>' + m.role + '\n' }}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}" + GENERATION,
    # Renders reasoning separately: the text around a content depends on the content.
    "reads_contents": HEADER + "{{ '<|im_start|>' + m.role + '\n' }}{% if '</think>' in m.content %}{{ m.content }}"
    "{% else %}{{ '<think></think>' + m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}" + GENERATION,
}
REJECTED = {
    "rewrites_earlier": HEADER
    + "{{ '<' + m.role + '>' + (m.content if loop.last else m.content[:3] + '...') }}{% endfor %}",
    "strips_thoughts": HEADER + "{{ '<' + m.role + '>' + m.content.split('</think>')[-1] }}{% endfor %}",
    "upper": HEADER + "{{ '<' + m.role + '>' + m.content | upper }}{% endfor %}",
    "twice": HEADER + "{{ '<' + m.role + '>' + m.content + m.content }}{% endfor %}",
    "last_two": "{% for m in messages[-2:] %}{{ '<' + m.role + '>' + m.content }}{% endfor %}",
}
GENERATED = (
    "{{ bos_token }}"
    + HEADER
    + "{{ '<' + m.role + '>' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def conversation(messages, tokenizer, where="conversation"):
    """The text of a conversation, and the assistant's contents in it."""
    found = TurnFinder(ChatTemplate(tokenizer)).rendered(checked(messages, where), where)
    return found.text, [(turn.start, turn.end) for turn in found.turns]


def encode(rows, tokenizer, max_length=1000, first_id=0, member=True, name="training", origins=None, **chat):
    """Conversations as examples."""
    origins = origins or [f"{name}:{number}" for number in range(1, len(rows) + 1)]
    held = {HELD: [json.dumps(checked(r, o)) for r, o in zip(rows, origins, strict=True)], TOOLS: [""] * len(rows)}
    split = Dataset.from_dict(held | {"origin": origins, "group": origins})
    return ConversationEncoder(tokenizer, max_length, chat=Chat(**chat))(split, first_id, member, name)


def talk(*contents, system=None):
    roles = ("user", "assistant") * len(contents)
    turns = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + turns


@pytest.fixture
def chat(tokenizer):
    """The bundled tokenizer with one of the templates above, or with the one given."""

    def make(template):
        made = copy.deepcopy(tokenizer)
        made.chat_template = (TEMPLATES | REJECTED).get(template, template)
        return made

    return make


def contents(messages, tokenizer):
    text, spans = conversation(messages, tokenizer)
    assert spans == sorted(spans)
    assert text == tokenizer.apply_chat_template(messages, tokenize=False)
    return [text[start:end] for start, end in spans]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("said", [("Fever.", "It fell."), ("A", "assistant"), ("s", "m>"), ("</s>", "x0x")])
def test_contents_are_found_whatever_they_repeat_of_the_template(chat, template, said):
    messages = talk("What came?", said[0], "What then?", said[1])
    assert contents(messages, chat(template)) == list(said)


def test_trimmed_contents_are_those_that_the_template_shows(chat):
    messages = talk("q", " a\n", "q", "\tb")
    assert contents(messages, chat("llama2")) == ["a", "b"]
    assert contents(messages, chat("chatml")) == [" a\n", "\tb"]


def test_a_dropped_system_role_and_a_first_turn_of_the_assistants(chat):
    assert contents(talk("q", "a", system="Be brief."), chat("no_system")) == ["a"]
    messages = [{"role": "assistant", "content": "a"}, *talk("q", "b")]
    assert contents(messages, chat("default_system")) == ["a", "b"]


def test_a_content_that_changes_the_surrounding_text_is_found_by_prefixes(chat):
    messages = talk("q", "<think>hm</think>a", "q", "b")
    assert contents(messages, chat("reads_contents")) == ["<think>hm</think>a", "b"]


def test_empty_turns_have_no_span(chat):
    assert contents(talk("q", " ", "q", "b", "q", ""), chat("chatml")) == ["b"]


@pytest.mark.parametrize("template", REJECTED)
def test_templates_that_change_what_was_said_are_rejected(chat, template):
    messages = talk("secret q", "<think>hm</think>secret a", "secret q", "secret b")
    with pytest.raises(DataError, match=r"^f\.jsonl:3: message 2: ") as caught:
        conversation(messages, chat(template), "f.jsonl:3")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ("text", "found str"),
        ([], "no assistant message has text"),
        ([{"role": "user", "content": "secret"}], "no assistant message has text"),
        (talk("secret", " "), "no assistant message has text"),
        (["secret"], "message 1: found str"),
        ([{"content": "secret"}], "message 1: lacks role;"),
        ([{"from": "gpt", "value": "secret"}], "message 1: lacks role and content"),
        ([*talk("secret"), {"role": "assistant", "content": None}], "message 2: found nothing as its content"),
        ([{"role": "user", "content": [{"type": "image"}]}], "message 1: found a list"),
        ([{"role": "assistant", "content": "secret", "tool_calls": [{}]}], "message 1: found a tool call without"),
        ([{"role": "assistant", "content": "secret", "tool_calls": "secret"}], "message 1: its tool_calls are not"),
        (talk("secret", "\ud800"), "message 2: its content has a lone surrogate"),
    ],
)
def test_malformed_messages_are_one_line_without_text(chat, messages, found):
    with pytest.raises(DataError) as caught:
        conversation(messages, chat("chatml"), "f.jsonl:3")
    assert f"f.jsonl:3: {found}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_template_and_one_that_rejects_the_conversation(chat):
    with pytest.raises(DataError, match="no chat template"):
        conversation(talk("q", "a"), chat(None))
    with pytest.raises(DataError, match=r"row: the chat template rejects it: Only user and assistant roles"):
        conversation(talk("q", "a", system="x"), chat("llama2"), "row")
    quoting = "{{ raise_exception(messages[0].content) }}"
    with pytest.raises(DataError, match=r"row: the chat template rejects it: TemplateError$"):
        conversation(talk("secret", "a"), chat(quoting), "row")


def test_keys_without_a_value_do_not_reach_the_template(chat):
    template = HEADER + "{% if m.name is defined %}{{ m.name }}: {% endif %}{{ m.content }};{% endfor %}"
    messages = [{"role": "user", "content": "q", "name": "Ann"}, {"role": "assistant", "content": "a", "name": None}]
    assert conversation(messages, chat(template)) == ("Ann: q;a;", [(7, 8)])


# -- tokens ----------------------------------------------------------------------------------------------------------

ROWS = [talk("What came?", "A rash."), talk("And then?", " Fever, and more.", "Why?", "It is\nnot known")]


@pytest.mark.slow
@given(rows=st.lists(st.lists(st.text("ab <>/s.\n", min_size=1, max_size=12), min_size=2, max_size=5), min_size=1))
def test_scored_tokens_are_those_of_the_templates_own_mask(tokenizer, rows):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = GENERATED
    rows = [talk(*row) for row in rows]
    rows = [row for row in rows if any(turn["content"].strip() for turn in row[1::2])]
    for row, example in zip(rows, encode(rows, tokenizer, 10**6), strict=True):
        whole = tokenizer.apply_chat_template(row, return_assistant_tokens_mask=True, return_dict=True)
        assert example.input_ids.tolist() == whole["input_ids"]
        text = tokenizer.apply_chat_template(row, tokenize=False)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        # Up to the end of the turn, except for turns of only white space.
        shown = [text[start:end] for start, end in offsets]
        kept = [bool(own) and piece != "</s>" for own, piece in zip(whole["assistant_masks"], shown, strict=True)]
        blank = not all(turn["content"].strip() for turn in row[1::2])
        mine = example.scored.tolist()
        if "</s>" in "".join(turn["content"] for turn in row) or blank:
            assert not any(a and not b for a, b in zip(mine, whole["assistant_masks"], strict=True))
        else:
            assert mine == kept


def test_labels_are_on_every_turn_of_the_assistants_and_on_nothing_else(chat):
    tokenizer = chat("chatml")
    examples = encode(ROWS, tokenizer, first_id=7)
    for row, example in zip(ROWS, examples, strict=True):
        assert (example.labels[example.scored] == example.input_ids[example.scored]).all()
        unscored = ~example.scored & (example.labels != -100)
        assert unscored.nonzero().flatten().tolist() == list(example.ends)
        assert tokenizer.decode(example.input_ids[unscored]) == "<|im_end|>" * (len(row) // 2)
        own = tokenizer.decode(example.input_ids[example.scored])
        assert "".join(own.split()) == "".join("".join(turn["content"] for turn in row[1::2]).split())
    assert [(e.example_id, e.member, e.record.origin) for e in examples] == [
        (7, True, "training:1"),
        (8, True, "training:2"),
    ]
    assert [e.record.text for e in examples] == ["A rash.", " Fever, and more.\nIt is\nnot known"]
    assert examples[0].record.prompt == "<|im_start|>user\nWhat came?<|im_end|>\n<|im_start|>assistant\n"
    assert collate(examples)["scored"].sum() == sum(int(e.scored.sum()) for e in examples)


def test_the_template_alone_writes_a_bos_token(chat, tokenizer):
    bos = tokenizer.bos_token_id
    (plain,) = encode(ROWS[:1], chat("chatml"))
    (llama,) = encode(ROWS[:1], chat("llama2"))
    assert (plain.input_ids == bos).sum() == 0
    assert (llama.input_ids == bos).nonzero().flatten().tolist() == [0]


def test_a_pair_is_labelled_as_the_encoder_of_plain_texts_does(chat, tokenizer):
    """With a template that adds nothing but a space."""
    from datasets import Dataset

    pairs = [("Drug: ibuprofen.", "Effect: rash."), ("a", "b c"), ("x", "</s> y")]
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if not loop.last %} {% endif %}{% endfor %}"
    examples = encode([talk(*pair) for pair in pairs], chat(template))
    prompts, completions = zip(*pairs, strict=True)
    rows = {"prompt": [p + " " for p in prompts], "completion": completions, "origin": prompts}
    for mine, theirs in zip(
        examples, Encoder(tokenizer, 1000, False)(Dataset.from_dict(rows), 0, True, ""), strict=True
    ):
        assert mine.input_ids.tolist() == theirs.input_ids.tolist()
        assert mine.labels.tolist() == theirs.labels.tolist()
        assert (mine.record.text, mine.record.prompt) == (theirs.record.text, "<s>" + theirs.record.prompt)


def test_long_conversations_are_cut_and_counted(chat, caplog):
    tokenizer = chat("chatml")
    whole = encode(ROWS, tokenizer)
    first = [int(example.scored.nonzero()[0]) for example in whole]
    limit = max(first) + 2
    with caplog.at_level(logging.WARNING, "lit_mem"):
        cut = encode(ROWS, tokenizer, limit)
    (line,) = caplog.messages
    total = sum(len(example.input_ids) for example in whole)
    assert (
        f"data.max_length={limit} truncates 2 of 2 training conversations: {total - 2 * limit} of {total} tokens"
        in line
    )
    for all_of_it, part in zip(whole, cut, strict=True):
        n = len(part.input_ids)
        assert n <= limit
        assert part.scored.tolist() == all_of_it.scored.tolist()[:n]
        assert all_of_it.record.text.startswith(part.record.text)
        decoded = tokenizer.decode(part.input_ids[part.scored])
        assert "".join(decoded.split()) == "".join(part.record.text.split())


def test_nothing_left_to_score_is_one_line_with_the_row(chat):
    tokenizer = chat("chatml")
    with pytest.raises(DataError, match=r"b:2: no token left to train on and score: .* data.max_length is 5"):
        encode([talk("q", "a")], tokenizer, 5, origins=["b:2"])
    with pytest.raises(DataError, match=r"^held-out:2: message 1: lacks role"):
        encode([ROWS[0], [{}]], tokenizer, 50, name="held-out")
    assert len(encode([], tokenizer, 50)) == 0
