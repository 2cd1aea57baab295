"""Whether canaries are trained on whole: after template, tokenizer and the limit on length."""

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
    """Reject canaries that are cut or altered on their way to training: what is looked for would be another text.

    Of each the tokens have to be no more than `max_length`; those of its secret have to be trained on, all of them; and
    they have to spell it, but for white space (of a canary without a prefix: the whole of it). Of those that a coin
    leaves out the same is asked, as they are compared.

    Args:
        canaries: as made.
        examples: each as it is scored, in the same order, uncut; its record marks the secret.
        labels: (T,) int64 of each as it is trained on, `IGNORED` where it is not.
        tokenizer: of the model.
        max_length: most tokens that are trained on.

    Raises:
        ConfigError: there are such.
    """
    longest = max((len(one.input_ids) for one in examples), default=0)
    if n := sum(len(one.input_ids) > max_length for one in examples):
        raise ConfigError(
            f"data.canaries: {n} of {len(examples)} canaries would be cut: the longest has {longest} tokens, and "
            f"data.max_length is {max_length}; expected data.max_length of {longest} or more, or shorter canaries, as "
            "one that is cut is another"
        )
    altered = [
        canary.content.origin
        for canary, one, trained in zip(canaries, examples, labels, strict=True)
        if not _is_whole(canary, one, trained, tokenizer)
    ]
    if altered:
        raise ConfigError(
            f"data.canaries: {len(altered)} of {len(examples)} canaries ({altered[0]} is the first) are altered by the "
            "tokenizer or the chat template, or not trained on whole; expected texts that come through both as they "
            "are: another data.canaries, or another data.chat (template, loss)"
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
    """Whether some tokens stand in others, one after the other.

    >>> contains([1, 2, 3, 4], (2, 3)), contains([1, 2, 3, 4], (2, 4))
    (True, False)
    """
    n, wanted = len(part), list(part)
    return any(list(ids[i : i + n]) == wanted for i in range(len(ids) - n + 1))


def _solid(text: str) -> str:
    return "".join(text.split())
