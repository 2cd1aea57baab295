"""Shared by the attacks that change an example's text: encoding of the changed text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_mem.data.chunks import cut_at
from lit_mem.data.encoding import Encoded
from lit_mem.errors import MetricError
from lit_mem.types import IGNORED


def rewritten(example: Encoded, text: str, versions: Sequence[str], tokenizer: Any, limit: int | None) -> list[Encoded]:
    """Encode other versions of an example's text like the text itself, after the same prompt.

    The prompt, all before the first scored token, keeps its tokens. A version is tokenized together with the prompt's
    text, like the data, and its own tokens are identified by offsets.

    Args:
        example: the example; its labelled tokens are the scored ones, at least one.
        text: its scored part, as text.
        versions: replacements of `text`.
        tokenizer: a fast Hugging Face tokenizer.
        limit: number of tokens that the model can read; a version is truncated there, unless it is read in windows.
            None without a limit.

    Returns:
        One example per version, with every token of the version labelled except at position 0; without labels if a
        version has no token that can be scored.

    Raises:
        MetricError: the example is scored in several pieces, which a single text cannot replace.
    """
    scored = (example.labels != IGNORED).nonzero().flatten()
    if int(scored[-1] - scored[0]) >= len(scored):
        raise MetricError(
            f"example {example.example_id} is scored in several pieces, such as the assistant turns of a conversation; "
            "attacks that rewrite texts (Lowercase, Neighbourhood) expect one piece; remove them"
        )
    start, has_bos = int(scored[0]), int(example.input_ids[0]) == tokenizer.bos_token_id
    prompt = _prompt(example.input_ids[int(has_bos) :], start - int(has_bos), text, tokenizer)
    # Without a prompt, unscored tokens are a BOS, or the text's own first token.
    head = example.input_ids[: start if prompt else int(has_bos)]
    kept = len(_decoded(head[int(has_bos) :], tokenizer))
    encoded = tokenizer(
        [prompt + version for version in versions],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    rows = []
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # A token may cross the boundary, or have done so in the example and not in this version.
        new = [(token, end > len(prompt)) for token, (_, end) in zip(ids, offsets, strict=True) if end > kept]
        whole = torch.cat([head, torch.tensor([token for token, _ in new], dtype=torch.int64)])
        windows = cut_at(example, whole)
        kept_tokens = limit if windows is None else None
        whole = whole[:kept_tokens]
        counts = torch.tensor([False] * len(head) + [own for _, own in new])[:kept_tokens]
        counts[:1] = False
        labels = torch.where(counts, whole, IGNORED)
        rows.append(Encoded(whole, labels, example.example_id, example.member, windows=windows))
    return rows


def _decoded(ids: Tensor, tokenizer: Any) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _prompt(ids: Tensor, before: int, text: str, tokenizer: Any) -> str:
    """Text of the prompt before `text`, of whose token ids `before` are not scored; all without BOS."""
    if (whole := _decoded(ids, tokenizer)).endswith(text):
        return whole.removesuffix(text)
    # The tokenizer is not reversible.
    if before == 1 and ids[:1].tolist() == _ids(text, tokenizer)[:1]:
        return ""
    return _decoded(ids[:before], tokenizer)


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
