"""Canaries in a trainer: encode them as trained on, check them against the training set, and exclude them elsewhere."""

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
    """Recognizes texts that start with a canary, by their tokens.

    Args:
        canaries: all canaries; None without any.
        tokenizer: tokenizer of the model.
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
        """Reject canaries in other sets of texts.

        Raises:
            ConfigError: there are some.
        """
        n = sum(one.input_ids in self for one in examples)
        if n:
            raise ConfigError(
                f"MemorizationCallback: {n} of {len(examples)} texts of {option} are canaries; expected none, as "
                "in the texts before insert_canaries"
            )


def canaries_of(
    trainer: Trainer,
    canaries: CanarySet,
    members: Sequence[Encoded],
    first_id: int,
    counts: Counter[tuple[int, ...]] | None,
) -> list[Encoded]:
    """All canaries to score, with an end-of-text token if the trainer's rows have one.

    Args:
        trainer: with its training set.
        canaries: as inserted.
        members: texts as they are trained on.
        first_id: first example id.
        counts: number of copies of each text in the training set; None: not known, and not checked.

    Raises:
        ConfigError: a canary's number of copies in the training set differs from its coin, one is too long, or the
            trained rows do not contain the whole secret.
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
        ends = min(forms, key=lambda form: wrong[form])  # the first if tied
    _check_length(trainer, made[ends])
    if counts is not None and wrong[ends]:
        raise ConfigError(
            f"MemorizationCallback: {wrong[ends]} of {len(canaries)} canaries do not occur in train_dataset as often "
            "as inserted; expected the rows that insert_canaries returned with them, each text unchanged"
        )
    if trainer.is_in_train:
        if canaries.kind is not None and isinstance(trainer.model, nn.Module):
            canaries.kind.check_model(trainer.model)
        _check_trained(trainer, made[ends])
    log.info(
        "Canaries: %d of %d are in the training set, chosen at random, as %d of its rows; no other metric has them.",
        sum(one.member for one in made[ends]), len(canaries), len(canaries.texts),
    )  # fmt: skip
    return made[ends]


def _wrong(canaries: Sequence[Encoded], counts: Counter[tuple[int, ...]]) -> int:
    """Number of canaries whose number of copies in the training set is wrong."""
    ids = [tuple(one.input_ids.tolist()) for one in canaries]
    expected: Counter[tuple[int, ...]] = Counter()
    for one, key in zip(canaries, ids, strict=True):
        expected[key] += one.repetitions if one.member else 0
    return sum(counts[key] != expected[key] for key in ids)


def _check_trained(trainer: Trainer, canaries: Sequence[Encoded]) -> None:
    """Reject canaries whose secret is truncated or has no loss in the rows as collated by the trainer.

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
            f"MemorizationCallback: {lost} of {len(inserted)} inserted canaries are not trained on whole in the "
            f"collated rows: their secret is truncated, altered or without loss; check max_length "
            f"({limit}), packing_strategy ('bfd' truncates no text), and which tokens carry the loss "
            "(completion_only_loss, assistant_only_loss)"
        )


def _secret(one: Encoded) -> tuple[int, ...]:
    """The tokens of its secret and the one before, a sequence that only the canary has."""
    assert one.record is not None
    span = one.record.spans[0]
    return tuple(one.input_ids[span.start - 1 : span.end].tolist())


def _check_length(trainer: Trainer, canaries: Sequence[Encoded]) -> None:
    limit = getattr(trainer.args, "max_length", None)
    longest = max(len(one.input_ids) for one in canaries)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"MemorizationCallback: the longest canary has {longest} tokens, but the trainer's max_length is {limit}; "
            "expected shorter canaries or a larger max_length"
        )
