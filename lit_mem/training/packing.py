"""Packing: texts of a batch concatenated in few rows, so that a training step computes almost no padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

_WORTH_PACKING: Final = 0.9
_PACKING_KERNELS: Final = ("sdpa", "eager")


class Packer:
    """Packs the texts of a batch into rows, choosing the cheapest layout, so that little or no padding is computed.

    Positions start at 0 with each text, from which transformers infers that a token may only attend to its own text.

    Args:
        model: a Hugging Face causal LM, with or without a peft adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
        parts: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        tables = {id(m.weight) for m in (parts.get_input_embeddings(), parts.get_output_embeddings())}
        layers, width = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
        #: Whether the library is known to mask out other texts with this attention kernel.
        self.masks = bool(layers and width) and getattr(config, "_attn_implementation", None) in _PACKING_KERNELS
        self.token_cost = float(sum(p.numel() for p in model.parameters() if id(p) not in tables))
        self.pair_cost = 2.0 * layers * width

    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Assign texts to rows; the cheapest layout with rows of one width.

        Args:
            lengths: tokens of each text; an empty text is in no row.

        Returns:
            Indices of the texts in each row, in order. One row per text: packing gains nothing.
        """
        alone = [[i] for i, n in enumerate(lengths) if n]
        longest = max(lengths)
        # Half the pairs of tokens: the causal kernel skips the others if no mask is given. Building and reading masks
        # has a cost too.
        padded = len(alone) * longest * (self.token_cost + self.pair_cost * longest / 2)
        best, least = alone, padded * _WORTH_PACKING
        for fold in range(1, len(alone) + 1):
            rows = first_fit(lengths, fold * longest)
            width = max(sum(lengths[i] for i in row) for row in rows)
            cost = len(rows) * width * (self.token_cost + self.pair_cost * width)
            if cost < least:
                best, least = rows, cost
            if len(rows) == 1:
                break
        return best


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Put each text, the longest first, into the first row of `width` tokens with enough space.

    >>> first_fit([2, 5, 0, 3, 4], 5)
    [[1], [4], [3, 0]]
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        at = next((row for row, left in enumerate(free) if left >= lengths[i]), len(rows))
        if at == len(rows):
            rows.append([])
            free.append(width)
        rows[at].append(i)
        free[at] -= lengths[i]
    return rows


def laid_out(input_ids: Tensor, lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The texts of a padded batch, concatenated.

    Args:
        input_ids: (B, T) int64, padded on the right.
        lengths: number of tokens of each text to keep.
        rows: indices of the texts, row by row.

    Returns:
        (R, W) token ids; (R, W) positions within the text; (B, T) new index of each token of the batch, counted through
        all rows, 0 for dropped tokens. Unused space in a row is filled with texts of one token.
    """
    width = max(sum(lengths[i] for i in row) for row in rows)
    source = torch.zeros((len(rows), width), dtype=torch.int64)
    positions, place = torch.zeros_like(source), torch.zeros(input_ids.shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            span = torch.arange(lengths[i])
            source[r, start : start + lengths[i]] = span + i * input_ids.shape[1]
            positions[r, start : start + lengths[i]] = span
            place[i, : lengths[i]] = span + r * width + start
            start += lengths[i]
    source, positions, place = (t.to(input_ids.device, non_blocking=True) for t in (source, positions, place))
    return input_ids.flatten()[source], positions, place


def keeps_texts_apart(backbone: nn.Module, device: torch.device) -> bool:
    """Whether two texts in one row give the same output as each alone with this model; also with two such rows."""
    one, two = torch.arange(1, 6, device=device), torch.arange(3, 10, device=device)
    packed = torch.stack([torch.cat([one, two]), torch.cat([two[:5], two])])
    positions = torch.cat([torch.arange(5), torch.arange(7)]).to(device).expand(2, -1)
    try:
        first, second = (backbone(input_ids=t[None], use_cache=False).last_hidden_state[0].float() for t in (one, two))
        expected = torch.stack([torch.cat([first, second]), torch.cat([second[:5], second])])
        for n in (1, 2):
            output = backbone(input_ids=packed[:n], position_ids=positions[:n], use_cache=False)
            error = output.last_hidden_state.float() - expected[:n]
            # Far above rounding, also in 16 bits, and far below the effect of attending to another text.
            if not bool((error.norm(dim=-1) <= 0.05 * expected[:n].norm(dim=-1)).all()):
                return False
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False  # an architecture with other inputs: padding works for it
    return True
