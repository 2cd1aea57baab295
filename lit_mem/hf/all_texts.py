"""All texts that a trainer has tokenized, scored or not, decoded lazily."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from transformers import Trainer

from lit_mem.hf.calling import tokenizer_of
from lit_mem.hf.trainers_texts import cuts_texts

_AT_ONCE: Final = 1000


class TrainersTexts(Collection[str]):
    """The texts of tokenized rows, packed or not.

    Args:
        rows: with `input_ids`, and with `seq_lengths` if rows are packed.
        tokenizer: the tokenizer they were made with.
        others: token ids of texts to leave out.
    """

    def __init__(self, rows: Any, tokenizer: Any, others: Container[Tensor] = ()) -> None:
        self._rows, self._tokenizer, self._others = rows, tokenizer, others

    def __iter__(self) -> Iterator[str]:
        return (self._tokenizer.decode(ids, skip_special_tokens=True) for ids in self._ids())

    def __len__(self) -> int:
        return sum(1 for _ in self._ids())

    def __contains__(self, text: object) -> bool:
        return any(one == text for one in self)

    def _ids(self) -> Iterator[list[int]]:
        for first in range(0, len(self._rows), _AT_ONCE):
            part = self._rows[first : first + _AT_ONCE]
            for ids, lengths in zip(part["input_ids"], part.get("seq_lengths") or _none(part), strict=True):
                start = 0
                for n in [len(ids)] if lengths is None else lengths:
                    text = ids[start : start + n]
                    start += n
                    if text and torch.tensor(text) not in self._others:
                        yield text


def _none(part: dict[str, list[Any]]) -> list[None]:
    return [None] * len(part["input_ids"])


def all_texts(trainer: Trainer, member: bool, others: Container[Tensor] = ()) -> TrainersTexts | None:
    """The texts that a trainer trains or evaluates on (the first of several sets); None if they cannot be separated.

    Args:
        trainer: the trainer with its sets.
        member: whether to return the training set.
        others: token ids of texts to leave out, as in `lit_mem.hf.trainers_texts.members_of`.
    """
    rows: Any = trainer.train_dataset if member else trainer.eval_dataset
    if isinstance(rows, dict):
        rows = next(iter(rows.values()), None)
    if "input_ids" not in (getattr(rows, "column_names", None) or ()) or not hasattr(rows, "with_format"):
        return None
    if not hasattr(rows, "__len__") or cuts_texts(trainer, member):
        return None
    return TrainersTexts(rows.with_format(None), tokenizer_of(trainer), others)
