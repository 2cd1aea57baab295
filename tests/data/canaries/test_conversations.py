"""Canaries in conversations, and whether canaries pass template, tokenizer and limits unaltered."""

import copy

import pytest
import torch
from tokenizers import normalizers

from lit_mem.assets import chat_template
from lit_mem.data.canaries import Canary, Content, Lines, RandomTokens, Secrets, Setting
from lit_mem.data.canaries.conversations import SAID
from lit_mem.data.canaries.encoding import SECRET, copies, encoded
from lit_mem.data.chat.options import Chat
from lit_mem.data.chunk_options import Chunk
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.errors import ConfigError
from lit_mem.types import IGNORED

CHATML = Chat(template="asset:chatml")


def rendered(tokenizer, text):
    """Token ids of the conversation, and the text that they are of, by transformers alone."""
    messages = [{"role": "user", "content": SAID}, {"role": "assistant", "content": text}]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=chat_template("chatml"))
    return tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True), whole


def rows(n):
    said = [("user", "What of case"), ("assistant", "A rash on day")]
    return [{"messages": [{"role": role, "content": f"{words} {i}"} for role, words in said]} for i in range(n)]


@pytest.mark.parametrize("loss", ["assistant", "last", "all"])
def test_a_canary_is_what_the_assistant_says(tokenizer, loss):
    made = Secrets(6, seed=3).make(Setting(tokenizer))
    both = encoded(made, tokenizer, 256, False, 40, Chat(loss=loss, template="asset:chatml"))
    for i, (canary, example, labels) in enumerate(zip(made, both.scored, both.labels, strict=True)):
        expected, whole = rendered(tokenizer, canary.content.text)
        assert example.input_ids.tolist() == expected["input_ids"]
        start = whole.index(canary.content.text)
        secret = (start + len(canary.content.prefix), start + len(canary.content.text))
        overlap = [a < secret[1] and b > secret[0] and whole[a:b].strip() != "" for a, b in expected["offset_mapping"]]
        assert example.scored.tolist() == overlap
        (span,) = example.record.spans
        assert [span.start, span.end - 1] == [overlap.index(True), len(overlap) - 1 - overlap[::-1].index(True)]
        assert span.kind == SECRET
        ends = whole.index("<|im_end|>", start) + len("<|im_end|>")
        of_assistant = [a < ends and b > start for a, b in expected["offset_mapping"]]
        trained = [True] * len(of_assistant) if loss == "all" else of_assistant
        trained[0] = False
        assert (labels != IGNORED).tolist() == trained
        assert (example.example_id, example.member, example.repetitions) == (
            40 + i,
            canary.inserted,
            canary.repetitions,
        )
        assert example.record.text == canary.content.text


def test_one_without_a_prefix_has_its_second_half_as_the_secret(tokenizer):
    canary = Canary(Content("", "One line of mine, and no more."), 2, True)
    both = encoded([canary], tokenizer, 256, False, 0, CHATML)
    (example,) = both.scored
    scored = example.scored.nonzero().flatten().tolist()
    assert tokenizer.decode(example.input_ids[scored]).strip() == canary.content.text
    (span,) = example.record.spans
    assert list(range(span.start, span.end)) == scored[len(scored) // 2 :]
    for one in copies(both):
        assert torch.equal(one.labels, both.labels[0])
        assert one.scored.nonzero().flatten().tolist() == scored  # the end of the turn is trained on, not scored


@pytest.mark.parametrize("source", [Secrets(8, repetitions=[1, 3]), RandomTokens(8, length=12)])
def test_conversations_have_canaries_as_conversations(tokenizer, source):
    options = DataOptions(max_length=256, canary_source=source, check=False, chat=CHATML, heldout_fraction=0.5)
    plain = prepare(rows(12), tokenizer, DataOptions(max_length=256, check=False, chat=CHATML, heldout_fraction=0.5))
    found = prepare(rows(12), tokenizer, options)
    inserted = [one for one in found.canaries if one.member]
    assert len(found.train) - len(plain.train) == sum(one.repetitions for one in inserted)
    for one in found.canaries:
        assert one.input_ids.tolist() == rendered(tokenizer, one.record.text)[0]["input_ids"]
    for one in found.train[len(plain.train) :]:
        written = tokenizer.decode(one.input_ids[one.labels != IGNORED])
        assert one.record.text in written
        assert SAID not in written


# -- whether they are unaltered -----------------------------------------------------------------------------------


@pytest.fixture
def lowering(tokenizer):
    """A tokenizer that lowercases."""
    made = copy.deepcopy(tokenizer)
    made.backend_tokenizer.normalizer = normalizers.Lowercase()
    return made


@pytest.mark.parametrize("chat", [None, CHATML])
def test_canaries_that_the_tokenizer_alters_are_counted(lowering, tmp_path, chat):
    path = tmp_path / "mine.txt"
    path.write_text("all small\nOne LARGE\nanother small\nand LARGE again\n")
    made = Lines(str(path)).make(Setting(lowering))
    altered = r"^data\.canaries: 2 of 4 canaries \(first: mine\.txt:2\) are altered"
    with pytest.raises(ConfigError, match=altered) as found:
        encoded(made, lowering, 256, True, 0, chat)
    assert "\n" not in str(found.value)
    assert "LARGE" not in str(found.value)


def test_of_a_canary_with_a_prefix_the_secret_alone_has_to_come_through(lowering):
    assert len(encoded(Secrets(4).make(Setting(lowering)), lowering, 256, True, 0).scored) == 4


@pytest.mark.parametrize(("form", "chunk"), [("text", None), ("text", Chunk(16, 8)), ("chat", None)])
def test_canaries_that_would_be_cut_are_counted(tokenizer, form, chunk):
    texts = [{"text": f"Case {i}."} for i in range(8)] if form == "text" else rows(8)
    limit = 24 if form == "text" else 64
    source = RandomTokens(6, length=limit)
    options = {"max_length": limit, "canary_source": source, "check": False, "chunk": chunk, "heldout_fraction": 0.5}
    chat = {} if form == "text" else {"chat": CHATML}
    cut = rf"6 of 6 canaries would be truncated: the longest has \d+ tokens, but data\.max_length is {limit}; expected"
    with pytest.raises(ConfigError, match=cut):
        prepare(texts, tokenizer, DataOptions(**options, **chat))
