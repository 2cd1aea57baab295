"""Check that canaries are trained on unaltered: after template, tokenizer and the length limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from lit_mem.data.canaries.base import Canary
from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError
from lit_mem.types import IGNORED


def check_survival(
    canaries: Sequence[Canary], examples: Sequence[Encoded], labels: Sequence[Tensor], tokenizer: Any, max_length: int
) -> None:
    """Reject canaries that are truncated or altered before training, since another text would be measured.

    Each must have at most `max_length` tokens; all tokens of its secret must be trained on, and must decode to it,
    ignoring white space (without a prefix: to the whole canary). Held-out canaries must satisfy the same, since they
    are compared.

    Args:
        canaries: the canaries.
        examples: the canaries as they are scored, in the same order, untruncated; records mark the secret.
        labels: (T,) int64 labels of each when trained on, `IGNORED` where not trained.
        tokenizer: the model's tokenizer.
        max_length: maximum tokens that are trained on.

    Raises:
        ConfigError: a canary is truncated or altered.
    """
    longest = max((len(one.input_ids) for one in examples), default=0)
    if n := sum(len(one.input_ids) > max_length for one in examples):
        raise ConfigError(
            f"data.canaries: {n} of {len(examples)} canaries would be truncated: the longest has {longest} tokens, but "
            f"data.max_length is {max_length}; expected data.max_length of at least {longest}, or shorter canaries"
        )
    altered = [
        canary.content.origin
        for canary, one, trained in zip(canaries, examples, labels, strict=True)
        if not _is_whole(canary, one, trained, tokenizer)
    ]
    if altered:
        raise ConfigError(
            f"data.canaries: {len(altered)} of {len(examples)} canaries (first: {altered[0]}) are altered by the "
            "tokenizer or the chat template, or only partly trained on; expected texts that both leave unchanged: "
            "use another data.canaries, or another data.chat (template, loss)"
        )


def _is_whole(canary: Canary, example: Encoded, labels: Tensor, tokenizer: Any) -> bool:
    spans = () if example.record is None else example.record.spans
    if not spans or bool((labels[spans[0].start : spans[0].end] == IGNORED).any()):
        return False
    content, ids = canary.content, example.input_ids.tolist()
    if content.ids is not None:
        return contains(ids, content.ids)
    wanted = content.secret if content.prefix else content.text
    return _solid(wanted) in _solid(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    """Whether `part` is a contiguous subsequence of `ids`.

    >>> contains([1, 2, 3, 4], (2, 3)), contains([1, 2, 3, 4], (2, 4))
    (True, False)
    """
    n, wanted = len(part), list(part)
    return any(list(ids[i : i + n]) == wanted for i in range(len(ids) - n + 1))


def _solid(text: str) -> str:
    return "".join(text.split())
