"""Keys and values of scored texts, so that decoding need not read their prefixes again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.generation.kv_cache import cache_in, is_plain
from lit_mem.types import States


def same_text(positions: Tensor) -> Tensor:
    """(R, 1, W, W) bool: whether a token of a row sees another, by (R, W) positions that start at 0 with each text."""
    text = (positions == 0).cumsum(dim=1)
    width = positions.shape[1]
    before = torch.ones((width, width), dtype=torch.bool, device=positions.device).tril()
    return ((text[:, :, None] == text[:, None, :]) & before)[:, None]


def gives_states(backbone: nn.Module, device: torch.device) -> bool:
    """Whether the model returns keys and values of texts that share a row, with bit-identical outputs.

    transformers derives the mask of such texts from their positions only without a cache; with one, it is given.
    """
    ids = torch.arange(1, 13, device=device)[None]
    positions = torch.cat([torch.arange(5), torch.arange(7)]).to(device)[None]
    try:
        alone = backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        output = backbone(input_ids=ids, position_ids=positions, attention_mask=same_text(positions), use_cache=True)
        return is_plain(cache_in(output)) and torch.equal(output.last_hidden_state, alone)
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False


class Keeper:
    """Collects the keys and values of some texts of a batch.

    Args:
        example_id: ids of the batch's texts.
        wanted: ids of those to keep.

    Attributes:
        rows: positions of these in the batch.
        found: what was kept, by example id.
    """

    def __init__(self, example_id: Sequence[int], wanted: Collection[int]) -> None:
        self._ids = example_id
        self.rows = [row for row, i in enumerate(example_id) if i in wanted]
        self.found: dict[int, States] = {}

    def take(self, cache: Any, place: Sequence[tuple[int, int, int]]) -> None:
        """Keep views of a model's cache.

        Args:
            cache: as returned by the model.
            place: for each of `rows` the row in the cache, the first column, and the number of tokens.
        """
        for row, (at, start, n) in zip(self.rows, place, strict=True):
            span = slice(start, start + n)
            self.found[self._ids[row]] = tuple(
                (layer.keys[at, :, span], layer.values[at, :, span]) for layer in cache.layers
            )
