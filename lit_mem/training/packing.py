"""Packing: texts of a batch concatenated in few rows, so that almost no padding is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

_WORTH_PACKING: Final = 0.9
_MASKING: Final = ("sdpa", "eager")
_ONE_ROW: Final = ("flash_attention_2", "flash_attention_3")
"""Attention kernels that take the texts' bounds instead of a mask: skipping other texts costs nothing, and the library
finds the bounds only in a batch of one row."""


class Packer:
    """Packs the texts of a batch into rows, choosing the cheapest layout, so that little or no padding is computed.

    Positions start at 0 with each text, from which transformers infers that a token may only attend to its own text.

    Args:
        model: a Hugging Face causal LM, with or without a peft adapter.

    Attributes:
        one_row: whether all texts go into one row.
        masks: whether the library is known to keep texts of one row apart with the model's attention kernel.
    """

    one_row = False

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
        parts: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        skipped = {id(m.weight) for m in (parts.get_input_embeddings(), parts.get_output_embeddings())}
        # A base model with and without adapter gets the same layout, and so the same rounding.
        skipped |= {id(p) for p in _of_adapters(model)}
        layers, width = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
        kernel = getattr(config, "_attn_implementation", None)
        self.one_row = kernel in _ONE_ROW
        self.masks = bool(layers and width) and (self.one_row or kernel in _MASKING)
        self.token_cost = float(sum(p.numel() for p in model.parameters() if id(p) not in skipped))
        self.pair_cost = 2.0 * layers * width

    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Assign texts to rows; the cheapest layout with rows of one width.

        Args:
            lengths: tokens of each text; an empty text is in no row.

        Returns:
            Indices of the texts in each row, in order. One row per text: packing gains nothing.
        """
        alone = [[i] for i, n in enumerate(lengths) if n]
        if self.one_row:
            return [[i for (i,) in alone]]
        longest = max(lengths)
        # Half the pairs of tokens: the causal kernel skips the others if no mask is given. Building and reading masks
        # has a cost too.
        padded = len(alone) * longest * (self.token_cost + self.pair_cost * longest / 2)
        best, least = alone, padded * _WORTH_PACKING
        total = sum(lengths)
        for fold in range(1, len(alone) + 1):
            # The first row is more than half full, so from here on no layout costs less than the best.
            if total * (self.token_cost + self.pair_cost * fold * longest / 2) >= least:
                break
            rows = first_fit(lengths, fold * longest)
            width = max(sum(lengths[i] for i in row) for row in rows)
            cost = len(rows) * width * (self.token_cost + self.pair_cost * width)
            if cost < least:
                best, least = rows, cost
            if len(rows) == 1:
                break
        return best


def _of_adapters(model: nn.Module) -> Iterator[nn.Parameter]:
    from peft.tuners.tuners_utils import BaseTunerLayer  # slow import

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            for name in module.adapter_layer_names:
                part = getattr(module, name, None)
                yield from part.parameters() if isinstance(part, nn.Module) else ()


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Put each text, the longest first, into the first row of `width` tokens with enough space.

    >>> first_fit([2, 5, 0, 3, 4], 5)
    [[1], [4], [3, 0]]
    """
    rows: list[list[int]] = []
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i])
    least = lengths[order[-1]] if order else 0
    free: dict[int, int] = {}  # of the rows that may still take a text
    for i in order:
        at = next((row for row, left in free.items() if left >= lengths[i]), len(rows))
        if at == len(rows):
            rows.append([])
            free[at] = width
        rows[at].append(i)
        free[at] -= lengths[i]
        if free[at] < least:
            del free[at]
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


def keeps_texts_apart(backbone: nn.Module, device: torch.device, one_row: bool = False) -> bool:
    """Whether two texts in one row give the same output as each alone; unless `one_row`, also with two such rows."""
    one, two = torch.arange(1, 6, device=device), torch.arange(3, 10, device=device)
    packed = torch.stack([torch.cat([one, two]), torch.cat([two[:5], two])])
    positions = torch.cat([torch.arange(5), torch.arange(7)]).to(device).expand(2, -1)
    try:
        first, second = (backbone(input_ids=t[None], use_cache=False).last_hidden_state[0].float() for t in (one, two))
        expected = torch.stack([torch.cat([first, second]), torch.cat([second[:5], second])])
        for n in (1,) if one_row else (1, 2):
            output = backbone(input_ids=packed[:n], position_ids=positions[:n], use_cache=False)
            error = output.last_hidden_state.float() - expected[:n]
            # Far above rounding, also in 16 bits, and far below the effect of attending to another text.
            if not bool((error.norm(dim=-1) <= 0.05 * expected[:n].norm(dim=-1)).all()):
                return False
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False  # an architecture with other inputs: padding works for it
    return True
