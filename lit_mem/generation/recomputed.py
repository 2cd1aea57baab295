"""Prompts that are read anew with every token, for models without a key-value cache of texts alone, such as Mamba."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def has_kv_cache(model: nn.Module) -> bool:
    """Whether a causal LM, with or without a peft adapter, takes a key-value cache.

    A wrapper whose `forward` names no inputs hands on whatever it is given: it counts as one that does.
    """
    options = _options(model)
    return "past_key_values" in options or "input_ids" not in options


def _options(model: Any) -> set[str]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(base.forward).parameters)


class RecomputedRows:
    """Prompts of one length in one batch: no padding, which a recurrent model would read.

    Each step reads all tokens again, so that n tokens cost as much as about n / 2 times the whole text. It has the
    attributes and methods of `lit_mem.generation.rows.Rows`.

    Args:
        model: a causal LM in eval mode.
        ask: what reads tokens: the model, or what puts its virtual tokens in front.
        index: which of the prompts of a larger batch these are.
        prompts: int64 tensors on the CPU, one for each of them, all of one length.
    """

    def __init__(self, model: nn.Module, ask: Callable[..., Any], index: list[int], prompts: Sequence[Tensor]) -> None:
        self._ask, self._device = ask, next(model.parameters()).device
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in _options(model) else {}
        self.index, self.place = index, torch.tensor(index, device=self._device)
        self._ids = torch.stack(list(prompts)).to(self._device)
        self.logits = self._read()

    def _read(self) -> Tensor:
        logits: Tensor = self._ask(input_ids=self._ids, use_cache=False, **self._last_only).logits
        return logits[:, -1].float()

    def step(self, chosen: Tensor) -> None:
        """Go on with (n,) int64 tokens."""
        self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)
        self.logits = self._read()

    def leaving_pays(self, n_staying: int, are_first: bool) -> bool:
        """Whether to let the others go now: at once, as nothing has to be copied."""
        return n_staying < len(self.index)

    def keep(self, staying: list[int]) -> None:
        """Let all rows go except these, in order."""
        rows = torch.tensor(staying, device=self._device)
        self.index = [self.index[k] for k in staying]
        self.place, self.logits, self._ids = self.place[rows], self.logits[rows], self._ids[rows]


def groups_of_one_length(prompts: Sequence[Tensor]) -> list[list[int]]:
    """Which prompts are of one length, by index; those of a group in order."""
    groups: dict[int, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(i)
    return list(groups.values())
