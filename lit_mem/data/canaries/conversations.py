"""Canaries in conversations: each is an assistant turn, rendered by the chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from lit_mem.data.canaries.base import Canary, Content
from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.chat.options import Chat
from lit_mem.data.encoding import Encoded
from lit_mem.data.sources.chat_fields import HELD, TOOLS
from lit_mem.types import IGNORED, Record

SAID: Final = "Please go on."
"""The user turn before each canary, the same for all."""

SECRET: Final = "secret"
"""The kind of the span that marks the secret of a canary."""

_NO_LIMIT: Final = 2**31


def conversation(content: Content) -> list[dict[str, str]]:
    """The messages of a canary."""
    return [{"role": "user", "content": SAID}, {"role": "assistant", "content": content.text}]


def of_conversations(canaries: Sequence[Canary], tokenizer: Any, chat: Chat) -> tuple[list[Encoded], list[Encoded]]:
    """Canaries as untruncated conversations: as they are scored, and as they are trained on.

    User turns and template text are trained on no more than in other conversations. For a canary with a prefix only the
    secret is scored. A canary generated as tokens is used as its text, since templates take text, and may be tokenized
    differently.

    Args:
        canaries: the canaries.
        tokenizer: the model's tokenizer.
        chat: the template, and which turns carry the loss.

    Returns:
        Examples whose records mark the secret (nothing if it is not scored in full), and the examples as trained on.
    """
    from datasets import Dataset

    contents = [canary.content for canary in canaries]
    rows = {
        HELD: [json.dumps(_marked(content)) for content in contents],
        TOOLS: [""] * len(contents),
        "origin": [content.origin for content in contents],
        "group": [content.origin for content in contents],
    }
    encoder = ConversationEncoder(tokenizer, _NO_LIMIT, None, chat=chat)
    made = list(encoder(Dataset.from_dict(rows), 0, member=False, name="canary", looked_at=()))
    return [_scored(content, one) for content, one in zip(contents, made, strict=True)], made


def _marked(content: Content) -> list[dict[str, Any]]:
    user, assistant = conversation(content)
    spans = [(SECRET, len(content.prefix), len(content.text))]
    return [user, assistant | {"spans": spans}]


def _scored(content: Content, example: Encoded) -> Encoded:
    assert example.record is not None
    spans = [span for span in example.record.spans if span.kind == SECRET]
    record = Record(example.record.text, example.record.origin, spans=spans)
    if not content.prefix or not spans:
        return replace(example, record=record)
    labels = torch.full_like(example.labels, IGNORED)
    secret = slice(spans[0].start, spans[0].end)
    labels[secret] = example.input_ids[secret]
    return replace(example, labels=labels, ends=(), record=record)
