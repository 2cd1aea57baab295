"""Canaries in a trainer: as it trains on them, checked against its training set, and kept apart from other texts."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor, nn
from transformers import Trainer

from lit_mem.data.canaries.encoding import encoded
from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError
from lit_mem.hf.calling import tokenizer_of
from lit_mem.hf.canaries import CanarySet
from lit_mem.hf.trained_rows import trained_counts

log = logging.getLogger(__name__)

_NO_LIMIT: Final = 2**31


class Beginnings:
    """Knows texts that begin with a canary, by their tokens.

    Args:
        canaries: all; None: there are none.
        tokenizer: of the model.
    """

    def __init__(self, canaries: CanarySet | None, tokenizer: Any) -> None:
        made = (
            [] if canaries is None else encoded(canaries.canaries, tokenizer, _NO_LIMIT, False, 0, canaries.chat).scored
        )
        self._ids = {tuple(one.input_ids.tolist()) for one in made}
        self._lengths = sorted({len(ids) for ids in self._ids})

    def __contains__(self, input_ids: object) -> bool:
        ids = tuple(input_ids.tolist()) if isinstance(input_ids, Tensor) else ()
        return any(ids[:n] in self._ids for n in self._lengths)

    def check_none(self, examples: Sequence[Encoded], option: str) -> None:
        """Reject canaries among other texts.

        Raises:
            ConfigError: there are some.
        """
        n = sum(one.input_ids in self for one in examples)
        if n:
            raise ConfigError(
                f"MemorizationCallback: {n} of {len(examples)} texts of {option} are canaries; expected none there, as "
                "in the texts before insert_canaries"
            )


def canaries_of(
    trainer: Trainer,
    canaries: CanarySet,
    members: Sequence[Encoded],
    first_id: int,
    counts: Counter[tuple[int, ...]] | None,
) -> list[Encoded]:
    """All canaries to be scored, with an end-of-text token where the trainer's rows have one.

    Args:
        trainer: with its training set.
        canaries: as inserted.
        members: texts as they are trained on.
        first_id: ids count up from here.
        counts: how often each text stands in the training set; None: that is not known, and not checked.

    Raises:
        ConfigError: the training set does not have them as often as their coins say, one is too long, or the rows that
            are trained on do not have their secrets whole.
    """
    tokenizer = tokenizer_of(trainer)
    end = tokenizer.eos_token_id
    ends = end is not None and any(int(one.input_ids[-1]) == end for one in members)
    forms = [ends] if end is None else [ends, not ends]
    made = {
        form: encoded(canaries.canaries, tokenizer, _NO_LIMIT, form, first_id, canaries.chat).scored for form in forms
    }
    if counts is not None:
        wrong = {form: _wrong(made[form], counts) for form in forms}
        ends = min(forms, key=lambda form: wrong[form])  # the first of equals
    _check_length(trainer, made[ends])
    if counts is not None and wrong[ends]:
        raise ConfigError(
            f"MemorizationCallback: {wrong[ends]} of {len(canaries)} canaries do not stand in train_dataset as often "
            "as their coins say; expected the rows that insert_canaries returned with them, each text as it is"
        )
    if trainer.is_in_train:
        if canaries.kind is not None and isinstance(trainer.model, nn.Module):
            canaries.kind.check_model(trainer.model)
        _check_trained(trainer, made[ends])
    log.info(
        "Canaries: %d of %d are in the training set, by fair coins, as %d of its rows; no other metric has them.",
        sum(one.member for one in made[ends]), len(canaries), len(canaries.texts),
    )  # fmt: skip
    return made[ends]


def _wrong(canaries: Sequence[Encoded], counts: Counter[tuple[int, ...]]) -> int:
    """How many canaries stand in the training set more or less often than they should."""
    ids = [tuple(one.input_ids.tolist()) for one in canaries]
    expected: Counter[tuple[int, ...]] = Counter()
    for one, key in zip(canaries, ids, strict=True):
        expected[key] += one.repetitions if one.member else 0
    return sum(counts[key] != expected[key] for key in ids)


def _check_trained(trainer: Trainer, canaries: Sequence[Encoded]) -> None:
    """Reject canaries whose secret is cut or carries no loss in the rows as the trainer collates them.

    Raises:
        ConfigError: there are some.
    """
    inserted = [one for one in canaries if one.member]
    counts = trained_counts(trainer, [_secret(one) for one in inserted])
    if counts is None:
        return
    lost = sum(counts[_secret(one)] < one.repetitions for one in inserted)
    if lost:
        limit = getattr(trainer.args, "max_length", None)
        raise ConfigError(
            f"MemorizationCallback: {lost} of {len(inserted)} inserted canaries are not trained on whole in the rows "
            f"that the trainer collates: their secret is cut, altered or without loss; expected all: check max_length "
            f"({limit}), packing_strategy ('bfd' cuts no text), and which tokens carry the loss (completion_only_loss, "
            "assistant_only_loss)"
        )


def _secret(one: Encoded) -> tuple[int, ...]:
    """The tokens of its secret, and the one before, which nothing but the canary has together."""
    assert one.record is not None
    span = one.record.spans[0]
    return tuple(one.input_ids[span.start - 1 : span.end].tolist())


def _check_length(trainer: Trainer, canaries: Sequence[Encoded]) -> None:
    limit = getattr(trainer.args, "max_length", None)
    longest = max(len(one.input_ids) for one in canaries)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"MemorizationCallback: the longest canary has {longest} tokens, and the trainer's max_length is {limit}; "
            "expected shorter canaries or a larger max_length, as a canary that is cut is another"
        )
