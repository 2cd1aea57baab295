"""Encode canaries: once each for scoring, and once per insertion for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from lit_mem.data.canaries.base import Canary, Content
from lit_mem.data.canaries.conversations import SECRET, of_conversations
from lit_mem.data.canaries.survival import check_survival
from lit_mem.data.chat.options import Chat
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.types import IGNORED, Record, Span

__all__ = ["SECRET", "Trained", "copies", "encoded"]

_NO_LIMIT: Final = 2**31


class Trained(NamedTuple):
    """Encoded canaries, inserted and held out.

    Attributes:
        scored: each canary as it is scored.
        labels: (T,) int64 labels of each when trained on.
        ends: for each, the trained tokens that are not text, as in `Encoded`.
    """

    scored: list[Encoded]
    labels: list[Tensor]
    ends: list[tuple[int, ...]]


def encoded(
    canaries: Sequence[Canary],
    tokenizer: Any,
    max_length: int,
    add_eos: bool,
    first_id: int,
    chat: Chat | None = None,
) -> Trained:
    """Encode all canaries for scoring: for a text with a prefix, only what follows it.

    Their records have the secret as a span (without a prefix, the second half), and the attributes `repetitions` and,
    if there is one, `group`.

    Args:
        canaries: the canaries.
        tokenizer: the model's tokenizer.
        max_length: maximum tokens in an example.
        add_eos: end each with the tokenizer's end-of-text token, as the texts are.
        first_id: ids count up from here.
        chat: options of conversations whose assistant turns they are; None: plain texts.

    Raises:
        ConfigError: some are longer than `max_length`, or are altered before training.
    """
    if chat is None:
        examples, labels = _of_contents([canary.content for canary in canaries], tokenizer, add_eos)
        ends = [one.ends for one in examples]
    else:
        canaries = [one._replace(content=one.content._replace(ids=None)) for one in canaries]
        examples, whole = of_conversations(canaries, tokenizer, chat)
        labels, ends = [one.labels for one in whole], [one.ends for one in whole]
    check_survival(canaries, examples, labels, tokenizer, max_length)
    found = []
    for i, (canary, example) in enumerate(zip(canaries, examples, strict=True)):
        content = canary.content
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
    return Trained(found, labels, ends)


def copies(canaries: Trained) -> list[Encoded]:
    """The examples to add to the training set: each inserted canary, repeated.

    A text is trained on in full, a conversation as the options say.
    """
    found = []
    for canary, labels, ends in zip(*canaries, strict=True):
        if canary.member:
            found += [replace(canary, labels=labels, repetitions=0, ends=ends)] * canary.repetitions
    return found


def _of_contents(contents: Sequence[Content], tokenizer: Any, add_eos: bool) -> tuple[list[Encoded], list[Tensor]]:
    """As untruncated texts: as they are scored, and with labels on all tokens."""
    texts = [content for content in contents if content.ids is None]
    of_texts = iter(_of_texts(texts, tokenizer, add_eos) if texts else ())
    examples = [
        next(of_texts) if content.ids is None else _of_tokens(content, tokenizer, add_eos) for content in contents
    ]
    labels = [one.input_ids.clone() for one in examples]
    for one in labels:
        one[0] = IGNORED
    found = []
    for content, example in zip(contents, examples, strict=True):
        secret = example.scored.nonzero().flatten().tolist()
        spans = [Span(SECRET, secret[0], secret[-1] + 1)]
        found.append(replace(example, record=Record(content.text, content.origin, spans=spans)))
    return found, labels


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
