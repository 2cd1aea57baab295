"""Convert pre-tokenized rows to examples: exactly the trained tokens are scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_mem.data.encoding import Encoded
from lit_mem.functional.runs import runs
from lit_mem.types import IGNORED, Record


def texts_of_batch(batch: Mapping[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """The texts of a collated batch, without padding: (T,) int64 token ids, and (T,) int64 labels.

    Several texts in one row are separated by `position_ids` that restart, by numbers above 1 in `attention_mask`, or by
    a mask of token pairs, as packing collators produce.

    Args:
        batch: `input_ids` and `labels`, (B, T), and optionally `attention_mask` and `position_ids` of the same shape;
            or an `attention_mask` (B, 1, T, T): True, or 0.0 to be added, where a token attends to another.
    """
    rows = batch["input_ids"].cpu()
    labels = batch["labels"].cpu()
    mask, positions = (_beside(batch.get(name), rows) for name in ("attention_mask", "position_ids"))
    mask = _text_numbers(batch.get("attention_mask"), rows) if mask is None else mask
    for i in range(len(rows)):
        real = torch.ones_like(rows[i], dtype=torch.bool) if mask is None else mask[i] != 0
        starts = torch.zeros_like(real)
        if positions is not None:
            starts[1:] |= positions[i][1:] != positions[i][:-1] + 1
        if mask is not None:
            starts[1:] |= mask[i][1:] != mask[i][:-1]
        number = (starts & real).cumsum(0)[real]
        ids, given = rows[i][real], labels[i][real]
        for text in number.unique_consecutive().tolist():  # type: ignore[no-untyped-call]
            yield ids[number == text], given[number == text]


def _beside(values: Any, rows: Tensor) -> Tensor | None:
    """Values of each token on the CPU; None if they have another shape, as kernel-specific masks do."""
    if not isinstance(values, Tensor) or values.shape != rows.shape:
        return None
    return values.cpu()


def _text_numbers(mask: Any, rows: Tensor) -> Tensor | None:
    """(B, T) int64 from a mask of pairs: 1 + start of the token's text, 0 for one that does not attend to itself."""
    if not isinstance(mask, Tensor) or mask.shape != (len(rows), 1, rows.shape[1], rows.shape[1]):
        return None
    sees = mask[:, 0].cpu()
    sees = sees == 0 if sees.is_floating_point() else sees != 0
    return (sees.int().argmax(dim=-1) + 1) * sees.diagonal(dim1=1, dim2=2)


def encoded(input_ids: Tensor, labels: Tensor, tokenizer: Any, example_id: int, member: bool, origin: str) -> Encoded:
    """One text as an example, with decoded text.

    A special token at its end, or at the end of a turn inside it, is trained on but not scored, like one that
    `data.add_eos` appends; so is the line break that some chat templates add after it.

    Args:
        input_ids: (T,) int64, T at least 1.
        labels: (T,) int64, -100 where a token is not trained on.
        tokenizer: the model's tokenizer.
        example_id: unique over the sets that are compared.
        member: whether it is in the fine-tuning set.
        origin: where it came from.
    """
    labels = torch.where(labels == IGNORED, IGNORED, input_ids)
    labels[0] = IGNORED  # nothing precedes it
    appended = _appended(input_ids, tokenizer)
    if not bool((labels[: len(labels) - appended] != IGNORED).any()):
        appended = 0
    ends = _ends(input_ids, labels, tokenizer, appended)
    made = Encoded(input_ids, labels, example_id, member, appended, ends=ends)
    scored = made.scored.nonzero().flatten().tolist()
    first = scored[0] if scored else len(labels)
    prompt = tokenizer.decode(input_ids[:first].tolist(), skip_special_tokens=True)
    text = tokenizer.decode(input_ids[scored].tolist(), skip_special_tokens=True)
    return Encoded(input_ids, labels, example_id, member, appended, Record(text, origin, prompt=prompt), ends=ends)


def _ends(input_ids: Tensor, labels: Tensor, tokenizer: Any, appended: int) -> tuple[int, ...]:
    """Positions of the end of each turn inside a text: a special token, and white space after it, as below."""
    found: list[int] = []
    for run in runs(labels[: len(labels) - appended] != IGNORED):
        n = _appended(input_ids[run], tokenizer)
        if 0 < n < len(run):
            found += run[-n:].tolist()
    return tuple(found)


def _appended(input_ids: Tensor, tokenizer: Any) -> int:
    """Number of tokens at the end that are a special token ending a text or turn, and white space after it."""
    ids = input_ids.tolist()
    ends = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
    for n in range(1, min(3, len(ids)) + 1):
        if ids[-n] in ends:
            return 0 if n > 1 and tokenizer.decode(ids[len(ids) - n + 1 :]).strip() else n
    return 0
