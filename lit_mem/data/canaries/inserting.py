"""Generate and encode the canaries of a run, and insert those whose coin says so into the training set."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lit_mem.data.canaries.base import CanarySource, Setting
from lit_mem.data.canaries.encoding import copies, encoded
from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.examples import Examples
from lit_mem.guards import preserved_random_state

if TYPE_CHECKING:
    from torch import nn

    from lit_mem.data.texts import Texts

log = logging.getLogger(__name__)


def inserted(
    source: CanarySource,
    train: Examples,
    texts: Texts,
    encoder: Encoder,
    base_model: Callable[[], nn.Module] | None,
    once: Callable[[Callable[[], Any]], Any],
) -> tuple[Examples, list[Encoded]]:
    """The training set with the inserted canaries, and all canaries; their ids follow those of all texts.

    Args:
        source: generates the canaries.
        train: the members.
        texts: all texts of the run, which canaries must differ from.
        encoder: encoder of the members.
        base_model: as in `Setting`.
        once: as in `Setting`.

    Raises:
        ConfigError: see `CanarySource.make` and `encoded`.
        DataError: see `CanarySource.make` and `encoded`.
    """
    with preserved_random_state():
        made = source.make(Setting(encoder.tokenizer, texts.every(), base_model, once))
    first_id = sum(map(len, texts.sets))
    chat = encoder.chat if isinstance(encoder, ConversationEncoder) else None
    both = encoded(made, encoder.tokenizer, encoder.max_length, bool(encoder.eos), first_id, chat)
    more, canaries = copies(both), both.scored
    turns = sorted(Counter(example.repetitions for example in canaries if example.member).items())
    log.info(
        "Canaries: %d of %d are inserted, by fair coins (%s): %d of %d training rows. Other metrics exclude them.",
        sum(n for _, n in turns), len(canaries), ", ".join(f"{n} {k}-fold" for k, n in turns) or "none",
        len(more), len(train) + len(more),
    )  # fmt: skip
    return train + more, canaries
