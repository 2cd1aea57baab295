"""Texts to token ids and labels, and examples to batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from lit_mem.errors import DataError
from lit_mem.types import IGNORED, Batch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """One example as the model sees it.

    Attributes:
        input_ids: (T,) int64, without padding.
        labels: (T,) int64, `IGNORED` on the first token and on the prompt.
        example_id: unique over the sets that are compared.
        member: whether it is in the fine-tuning set.
        appended: number of tokens at the end that are not of the text: trained on, not scored.
    """

    input_ids: Tensor
    labels: Tensor
    example_id: int
    member: bool
    appended: int = 0

    @property
    def scored(self) -> Tensor:
        """(T,) bool, which tokens measures read."""
        scored = self.labels != IGNORED
        scored[0] = False
        scored[len(scored) - self.appended :] = False
        return scored


class Encoder:
    """Tokenizes prompt and completion as one text, with labels on the completion only.

    Args:
        tokenizer: a Hugging Face tokenizer; whether a BOS token stands in front is its own habit.
        max_length: longest example in tokens; what goes beyond is cut, and counted.
        add_eos: end each example with the tokenizer's end-of-text token, so that the model learns to stop.

    Raises:
        DataError: `add_eos` with a tokenizer that has no such token, or a tokenizer without offsets.
    """

    def __init__(self, tokenizer: Any, max_length: int, add_eos: bool) -> None:
        if add_eos and tokenizer.eos_token_id is None:
            raise DataError("data.add_eos is true, but the tokenizer has no end-of-text token; set it to false")
        if not getattr(tokenizer, "is_fast", False):
            raise DataError("this tokenizer does not tell where its tokens stand in the text; a fast one is needed")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.eos = [tokenizer.eos_token_id] if add_eos else []
        self.bos: int | None = tokenizer.bos_token_id

    def __call__(self, rows: Dataset, first_id: int, member: bool, name: str) -> list[Encoded]:
        """Encode a split, called `name` in messages; ids count up from `first_id`.

        Raises:
            DataError: a row leaves no token to train on, as its prompt fills `max_length`.
        """
        if not len(rows):
            return []
        prompts, completions, origins = rows["prompt"], rows["completion"], rows["origin"]
        texts = [p + c for p, c in zip(prompts, completions, strict=True)]
        # Together, then told apart by offsets: tokenizing the halves alone can give other tokens at the seam.
        encoded = self.tokenizer(texts, return_offsets_mapping=True, return_attention_mask=False)
        examples, cut = [], 0
        for i, (ids, offsets, prompt) in enumerate(
            zip(encoded["input_ids"], encoded["offset_mapping"], prompts, strict=True)
        ):
            if self.bos is not None and ids[:2] == [self.bos, self.bos]:
                ids, offsets = ids[1:], offsets[1:]  # a text that spells the BOS token itself
            trained = [end > len(prompt) for _, end in offsets] + [True] * len(self.eos)
            whole = [*ids, *self.eos]
            cut += len(whole) > self.max_length
            input_ids = torch.tensor(whole[: self.max_length])
            labels = input_ids.clone()
            labels[~torch.tensor(trained[: self.max_length])] = IGNORED
            labels[0] = IGNORED
            appended = len(self.eos) if len(whole) <= self.max_length else 0
            example = Encoded(input_ids, labels, first_id + i, member, appended)
            if not example.scored.any():
                raise DataError(
                    f"{origins[i]}: no token to train on and score is left: prompt and completion are "
                    f"{len(ids)} tokens, data.max_length is {self.max_length}, and the first token is never scored"
                )
            examples.append(example)
        if cut:
            log.warning(
                "%d of %d %s texts were cut to data.max_length=%d tokens.", cut, len(texts), name, self.max_length
            )
        return examples


def collate(examples: Sequence[Encoded]) -> Batch:
    """Examples to one batch, padded on the right to the longest.

    The padding token does not matter: causal attention keeps real tokens from seeing it, and no label is on it.
    """
    width = max(len(e.input_ids) for e in examples)
    input_ids = torch.zeros((len(examples), width), dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    scored = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.input_ids)] = example.input_ids
        labels[row, : len(example.labels)] = example.labels
        scored[row, : len(example.labels)] = example.scored
    return Batch(
        input_ids=input_ids,
        labels=labels,
        scored=scored,
        example_id=torch.tensor([e.example_id for e in examples]),
        member=torch.tensor([e.member for e in examples]),
    )
