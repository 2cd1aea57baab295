"""Canaries as the model sees them: once each to be scored, and as often as they are inserted to be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch

from lit_mem.data.canaries.base import Canary, Content
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.errors import ConfigError
from lit_mem.types import IGNORED, Record, Span

SECRET: Final = "secret"
"""The kind of the span that marks what is to be extracted from a canary."""

_NO_LIMIT: Final = 2**31


def encoded(canaries: Sequence[Canary], tokenizer: Any, max_length: int, add_eos: bool, first_id: int) -> list[Encoded]:
    """All canaries, in and out, to be scored: of a text with a prefix only what comes after it.

    Their records tell the secret as a span (of a canary without a prefix its second half), and the attributes
    `repetitions` and, where it has one, `group`.

    Args:
        canaries: as made.
        tokenizer: of the model.
        max_length: most tokens in an example.
        add_eos: end each with the tokenizer's end-of-text token, as the texts are.
        first_id: ids count up from here.

    Raises:
        ConfigError: one is longer than `max_length`.
    """
    contents = [canary.content for canary in canaries]
    texts = [content for content in contents if content.ids is None]
    examples = iter(_of_texts(texts, tokenizer, add_eos) if texts else ())
    found = []
    for i, (canary, content) in enumerate(zip(canaries, contents, strict=True)):
        example = next(examples) if content.ids is None else _of_tokens(content, tokenizer, add_eos)
        if len(example.input_ids) > max_length:
            raise ConfigError(
                f"data.canaries: {content.origin} has {len(example.input_ids)} tokens; expected data.max_length, "
                f"{max_length}, or fewer, as a canary that is cut is another"
            )
        attributes = {"repetitions": float(canary.repetitions)} | ({"group": content.group} if content.group else {})
        scored = example.scored.nonzero().flatten().tolist()
        secret = scored if content.prefix else scored[len(scored) // 2 :]
        record = Record(content.text, content.origin, attributes, spans=[Span(SECRET, secret[0], secret[-1] + 1)])
        found.append(
            replace(
                example,
                example_id=first_id + i,
                member=canary.inserted,
                repetitions=canary.repetitions,
                record=record,
            )
        )
    return found


def copies(canaries: Sequence[Encoded]) -> list[Encoded]:
    """What joins the training set: each inserted canary as often as it is to stand there, trained on as a whole."""
    found = []
    for canary in canaries:
        if canary.member:
            labels = canary.input_ids.clone()
            labels[0] = IGNORED
            found += [replace(canary, labels=labels, repetitions=0)] * canary.repetitions
    return found


def _of_texts(contents: Sequence[Content], tokenizer: Any, add_eos: bool) -> list[Encoded]:
    from datasets import Dataset

    rows = {
        "prompt": [content.prefix for content in contents],
        "completion": [content.secret for content in contents],
        "origin": [content.origin for content in contents],
    }
    encoder = Encoder(tokenizer, _NO_LIMIT, add_eos, spans_column=None)
    return list(encoder(Dataset.from_dict(rows), 0, member=False, name="canary"))


def _of_tokens(content: Content, tokenizer: Any, add_eos: bool) -> Encoded:
    assert content.ids is not None
    bos, eos = tokenizer.bos_token_id, [tokenizer.eos_token_id] if add_eos else []
    has_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    ids = torch.tensor([*([bos] if has_bos else []), *content.ids, *eos])
    labels = ids.clone()
    labels[0] = IGNORED
    return Encoded(ids, labels, 0, member=False, appended=len(eos))
