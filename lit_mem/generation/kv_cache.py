"""A key-value cache for prompts of different lengths that grows in place and drops rows and columns as views."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from lit_mem.types import States

CACHE_OPTION: Final = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What models of this release of transformers call the option and the field of a key-value cache."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values with preallocated space for new tokens.

    `DynamicLayer` copies its whole content for every new token.

    Args:
        keys: (B, heads, T + extra, head size), the first T filled.
        values: likewise.
        filled: T.
    """

    def __init__(self, keys: Tensor, values: Tensor, filled: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._all_keys, self._all_values = keys, values
        self._show(filled)

    def _show(self, filled: int) -> None:
        self.keys, self.values = self._all_keys[:, :, :filled], self._all_values[:, :, :filled]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (B, heads, n, head size), and return all keys and values."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def release(self) -> None:
        """Free the memory."""
        del self.keys, self.values, self._all_keys, self._all_values

    def keep(self, rows: slice | Tensor, first: int) -> None:
        """Keep only these rows, and the columns from `first` on; without a copy if the rows are a slice."""
        filled = self.keys.shape[-2] - first
        self._all_keys = self._all_keys[rows][:, :, first:]
        self._all_values = self._all_values[rows][:, :, first:]
        self._show(filled)


def join(caches: Sequence[Any], places: Sequence[Sequence[int]], extra: int) -> bool:
    """Merge several caches into the first, shorter ones left-padded with zeros; the others are emptied.

    Args:
        caches: as returned by a model, each with rows of one width.
        places: for each cache, the indices of its rows in the merged one; every index once.
        extra: number of further tokens to preallocate per row.

    Returns:
        Whether they were merged. Only caches that hold just keys and values of all tokens are supported: not sliding
        windows, recurrent or quantized layers.
    """
    if not all(is_plain(cache) for cache in caches):
        return False
    layers = []
    for parts in zip(*(cache.layers for cache in caches), strict=True):
        filled = max(part.keys.shape[-2] for part in parts)
        keys = _stacked([part.keys for part in parts], places, filled + extra)
        values = _stacked([part.values for part in parts], places, filled + extra)
        for part in parts:  # at most one layer is duplicated in memory
            if isinstance(part, PreallocatedLayer):
                part.release()
            else:
                part.keys = part.values = None
        layers.append(PreallocatedLayer(keys, values, filled))
    caches[0].layers = layers
    return True


def cache_option(model: nn.Module) -> str | None:
    """The option by which a causal LM, with or without a peft adapter, takes a key-value cache; None without one.

    transformers 5.24 renamed `past_key_values` to `cache`, and the state of recurrent models too, which has no
    keys and values. A wrapper whose `forward` lists no inputs passes everything on, and counts as supporting a cache.
    """
    options = options_of(model)
    if "input_ids" not in options:
        return CACHE_OPTION
    if "past_key_values" in options:
        return "past_key_values"
    return "cache" if "cache" in options and not getattr(_base(model), "_is_stateful", False) else None


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def options_of(model: nn.Module) -> set[str]:
    """Names of the inputs that a causal LM, with or without a peft adapter, takes."""
    return set(inspect.signature(_base(model).forward).parameters)


def cache_in(output: Any) -> Any:
    """The cache that a model returned; None without one. transformers before 5.24 names it `past_key_values`."""
    return output.cache if hasattr(output, "cache") else getattr(output, "past_key_values", None)


def is_plain(cache: Any) -> bool:
    """Whether a cache holds just keys and values of all tokens."""
    return (
        type(cache) is DynamicCache
        and not getattr(cache, "offloading", False)
        and all(type(layer) in (DynamicLayer, PreallocatedLayer) and layer.is_initialized for layer in cache.layers)
    )


def cache_of(states: Sequence[States], device: torch.device) -> DynamicCache:
    """A cache of the keys and values of some texts, left-padded with zeros."""
    made = DynamicCache()
    places, columns = [[i] for i in range(len(states))], max(one[0][0].shape[1] for one in states)
    for i, layer in enumerate(zip(*states, strict=True)):
        keys, values = ([part[k][None].to(device) for part in layer] for k in (0, 1))
        made.update(_stacked(keys, places, columns), _stacked(values, places, columns), i)
    return made


def _stacked(parts: Sequence[Tensor], places: Sequence[Sequence[int]], columns: int) -> Tensor:
    filled = max(part.shape[-2] for part in parts)
    _, heads, _, size = parts[0].shape
    # Zeros, since a masked column is still multiplied by zero.
    whole = parts[0].new_zeros((sum(map(len, places)), heads, columns, size))
    for part, place in zip(parts, places, strict=True):
        whole[torch.tensor(place, device=whole.device), :, filled - part.shape[-2] : filled] = part
    return whole
