"""What the attacks that change an example's text share: the changed text as the model sees it."""

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
    """Other versions of an example's text, tokenized as it was, behind the same prompt.

    The prompt, all before the first scored token, keeps its tokens. A version is tokenized together with the prompt's
    text, as the data was, and its own tokens are then told apart by offsets.

    Args:
        example: the example; its labelled tokens are the scored ones, of which it has at least one.
        text: what is scored of it, as a text.
        versions: what stands there instead.
        tokenizer: a fast Hugging Face tokenizer.
        limit: tokens that the model can read; a version is cut there, unless it is read in windows. None: any number.

    Returns:
        One example a version, with every token of the version labelled but for position 0; without a label where a
        version has no token that can be scored.

    Raises:
        MetricError: the example is scored in several pieces, so that no one text could stand in their place.
    """
    scored = (example.labels != IGNORED).nonzero().flatten()
    if int(scored[-1] - scored[0]) >= len(scored):
        raise MetricError(
            f"example {example.example_id} is scored in several pieces, as the assistant's turns of a conversation; "
            "attacks that rewrite texts (Lowercase, Neighbourhood) expect one: leave them out"
        )
    start, has_bos = int(scored[0]), int(example.input_ids[0]) == tokenizer.bos_token_id
    prompt = _prompt(example.input_ids[int(has_bos) :], start - int(has_bos), text, tokenizer)
    # Without a prompt, what is in front is BOS, or the text's own first token, which nothing precedes.
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
        # A token may reach over the seam, or have done so in the example and not in this version.
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
    """What stands in front of a text, of whose token ids `before` are not scored; all without BOS."""
    if (whole := _decoded(ids, tokenizer)).endswith(text):
        return whole.removesuffix(text)
    # A tokenizer that does not give the text back.
    if before == 1 and ids[:1].tolist() == _ids(text, tokenizer)[:1]:
        return ""
    return _decoded(ids[:before], tokenizer)


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids
