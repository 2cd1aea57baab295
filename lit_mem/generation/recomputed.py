"""Decoding that recomputes the whole prompt for every token, for models without a plain key-value cache (Mamba)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.generation.kv_cache import options_of


class RecomputedRows:
    """Prompts of one length in one batch, without padding, which a recurrent model would read.

    Each step reads all tokens again, so n tokens cost about n / 2 times the whole text. It has the attributes and
    methods of `lit_mem.generation.rows.Rows`.

    Args:
        model: a causal LM in eval mode.
        call: the callable that reads tokens: the model, or its wrapper with virtual tokens.
        index: indices of these prompts in a larger batch.
        prompts: int64 tensors on the CPU, one for each of them, all of the same length.
    """

    in_place = full = False
    unread = None

    def __init__(self, model: nn.Module, call: Callable[..., Any], index: list[int], prompts: Sequence[Tensor]) -> None:
        self._call, self._device = call, next(model.parameters()).device
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in options_of(model) else {}
        self.index, self.place = index, torch.tensor(index, device=self._device)
        self._ids = torch.stack(list(prompts)).to(self._device)
        self.read()

    def put(self, chosen: Tensor) -> None:
        """Append (n,) int64 tokens, to be read."""
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)

    def read(self) -> None:
        """Read all tokens."""
        logits: Tensor = self._call(input_ids=self._ids, use_cache=False, **self._last_only).logits
        self.logits = logits[:, -1].float()

    def grow(self) -> None:
        """There is always space."""

    def leaving_pays(self, n_staying: int, are_first: bool) -> bool:
        """Whether to remove finished rows now: always, as nothing has to be copied."""
        return n_staying < len(self.index)

    def keep(self, staying: list[int]) -> None:
        """Keep only these rows, in order."""
        rows = torch.tensor(staying, device=self._device)
        self.index = [self.index[k] for k in staying]
        self.place, self.logits, self._ids = self.place[rows], self.logits[rows], self._ids[rows]


def groups_of_one_length(prompts: Sequence[Tensor]) -> list[list[int]]:
    """Indices of prompts grouped by length; ascending in each group."""
    groups: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(i)
    return list(groups.values())
