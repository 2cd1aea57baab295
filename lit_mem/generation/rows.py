"""Prompts that a model continues together, one token per step, where rows may finish before others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from lit_mem.functional.length_groups import length_groups
from lit_mem.generation.kv_cache import cache_in, cache_of, cache_option, join
from lit_mem.generation.recomputed import RecomputedRows, groups_of_one_length
from lit_mem.generation.virtual_tokens import VirtualTokens, has_prefix
from lit_mem.types import States

# Maximum number of prompt tokens read at once. A sixteenth of it is the cost of one more group in `length_groups`:
# about as many tokens as two CPU cores read in the time of reading all weights; a GPU, while its host starts kernels.
_PROMPT_TOKENS: Final = {"cpu": 1024}
_PROMPT_TOKENS_ELSEWHERE: Final = 16384


class Rows:
    """Prompts in one batch, left-padded, so that every row continues from the last column.

    Args:
        model: a causal LM in eval mode.
        call: the callable that reads tokens: the model, or its wrapper with virtual tokens.
        option: its option that takes a key-value cache.
        index: indices of these prompts among all.
        prompts: int64 tensors on the CPU, one for each of them.
        lengths: maximum number of new tokens for each, at least 1.
        cache: keys and values of all prompts except for their last tokens, left-padded; these tokens are then unread.
            None: the prompts are read.

    Attributes:
        index: indices of the remaining rows.
        place: (n,) int64, the same on the model's device.
        unread: (n,) int64, the last token of each row if it is still to be read; None if all are read.
        logits: (n, V) float32 logits of the next tokens, once all are read.
        in_place: whether rows can be added, and removed without a copy.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Callable[..., Any],
        option: str,
        index: list[int],
        prompts: Sequence[Tensor],
        lengths: Sequence[int],
        cache: Any = None,
    ) -> None:
        self._call, self._device = call, next(model.parameters()).device
        self._option = option
        self.index, self.place = index, torch.tensor(index, device=self._device)
        held = [len(p) - (cache is not None) for p in prompts]
        self._columns = max(held)
        self._padding = [self._columns - n for n in held]
        # Finished rows that remain keep their last position: the model may have no further one.
        self._whole = [len(p) + length for p, length in zip(prompts, lengths, strict=True)]
        self._last_position = torch.tensor(self._whole, device=self._device)[:, None] - 1
        self._cache = cache
        self.in_place = False
        self._spare = 0
        self._mask = self._made_mask()
        self.unread: Tensor | None = None
        if cache is not None:
            self._position = torch.tensor(held, device=self._device)[:, None] - 1
            self.put(torch.tensor([int(p[-1]) for p in prompts], device=self._device))
            return
        ids = torch.zeros((len(prompts), self._columns), dtype=torch.int64)  # the id of padding does not matter
        for row, (prompt, padding) in enumerate(zip(prompts, self._padding, strict=True)):
            ids[row, padding:] = prompt
        columns = torch.arange(self._columns, device=self._device)
        positions = (columns - torch.tensor(self._padding, device=self._device)[:, None]).clamp(min=0)
        self._forward(ids.to(self._device), positions)

    @property
    def has_cache(self) -> bool:
        """Whether the model returned a key-value cache."""
        return self._cache is not None

    def absorb(self, others: Sequence[Rows]) -> bool:
        """Take the rows of others, which are emptied, and make space for as many columns as the longest text may need.

        Args:
            others: rows of the same model, all read, or none of them, as these.

        Returns:
            Whether the caches allow it.
        """
        parts = [self, *others]
        columns = max(part._columns for part in parts)
        index = [i for part in parts for i in part.index]
        padding = [columns - part._columns + p for part in parts for p in part._padding]
        whole = [n for part in parts for n in part._whole]
        # The rows that finish first are then the last ones, which leave without a copy of the others.
        finish = [n + p for n, p in zip(whole, padding, strict=True)]
        order = sorted(range(len(index)), key=lambda k: (-finish[k], index[k]))
        rank = iter(torch.tensor(order).argsort().tolist())
        places = [[next(rank) for _ in part.index] for part in parts]
        self._spare = max(1, max(whole) - columns)
        if not join([part._cache for part in parts], places, self._spare):
            return False
        self.index, self._padding = [index[k] for k in order], [padding[k] for k in order]
        self._columns, self._whole, self.in_place = columns, [whole[k] for k in order], True
        self.place, at = (torch.tensor(list(each), device=self._device) for each in (self.index, order))
        for name in ("logits" if self.unread is None else "unread", "_position", "_last_position"):
            setattr(self, name, torch.cat([getattr(part, name) for part in parts])[at])
        self._mask = self._made_mask()
        return True

    @property
    def full(self) -> bool:
        """Whether there is no space for a further token: `grow` makes some."""
        return self.in_place and self._spare == 0

    def grow(self) -> None:
        """Make space for further tokens, where padding was that no remaining row needs."""
        order = self.index
        self.absorb([])
        assert self.index == order

    def _made_mask(self) -> Tensor | None:
        """(n, columns) int64, 0 for padding; None without padding, so that the faster kernels run."""
        if not any(self._padding):
            return None
        columns = torch.arange(self._columns, device=self._device)
        return (columns >= torch.tensor(self._padding, device=self._device)[:, None]).long()

    def _forward(self, ids: Tensor, positions: Tensor) -> None:
        output = self._call(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=positions,
            **{self._option: self._cache},
            use_cache=True,
            # An index copies the last states. A slice of them, which a number gives, is multiplied row by row.
            logits_to_keep=1 if ids.shape[1] == 1 else self._last_column(ids.shape[1]),
        )
        self._cache = cache_in(output)
        self._position = positions[:, -1:]
        self.logits = output.logits[:, -1].float()

    def _last_column(self, width: int) -> Tensor:
        return torch.tensor([width - 1], device=self._device)

    def put(self, chosen: Tensor) -> None:
        """Append (n,) int64 tokens, to be read."""
        self.unread = chosen

    def read(self) -> None:
        """Read the unread tokens."""
        assert self.unread is not None
        ids, self.unread = self.unread[:, None], None
        self._columns += 1
        self._spare -= 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(ids), 1))], dim=1)
        self._forward(ids, torch.minimum(self._position + 1, self._last_position))

    def leaving_pays(self, n_staying: int, are_first: bool) -> bool:
        """Whether to remove finished rows now; `are_first`: whether the remaining rows are the first ones.

        The cache of the remaining rows is copied unless they are the first, which costs about as much as a step of a
        quarter of them.
        """
        n_leaving = len(self.index) - n_staying
        return n_leaving > 0 if are_first and self.in_place else 4 * n_leaving >= len(self.index)

    def keep(self, staying: list[int]) -> None:
        """Keep only these rows, in order; padding that only removed rows needed is dropped too."""
        rows: slice | Tensor = slice(len(staying))
        if staying[-1] >= len(staying):
            rows = torch.tensor(staying, device=self._device)
        self.index, self.place = [self.index[k] for k in staying], self.place[rows]
        self.logits, self._position = self.logits[rows], self._position[rows]
        self._last_position = self._last_position[rows]
        self._whole = [self._whole[k] for k in staying]
        padding = [self._padding[k] for k in staying]
        if self.in_place:
            first = min(padding)
            for layer in self._cache.layers:
                layer.keep(rows, first)
            self._columns, padding = self._columns - first, [p - first for p in padding]
        else:
            self._cache.reorder_cache(torch.tensor(staying, device=self._device))
        self._padding = padding
        self._mask = self._made_mask()


AnyRows = Rows | RecomputedRows


def begin(
    model: nn.Module,
    index: list[int],
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    states: Iterable[States | None] | None = None,
) -> list[AnyRows]:
    """Prefill prompts in groups of similar length, except for those whose keys and values are known.

    Args:
        model: a causal LM in eval mode.
        index: indices of the prompts, which the rows keep.
        prompts: int64 tensors on the CPU.
        lengths: maximum number of new tokens for each, at least 1.
        states: keys and values of each prompt's tokens, except for the last, where known.

    Returns:
        Rows, some for each group; those of known states still have a last token to be read.
    """
    limit = _PROMPT_TOKENS.get(next(model.parameters()).device.type, _PROMPT_TOKENS_ELSEWHERE)
    if has_prefix(model):  # which is in the cache, before any padding
        return _recomputed(model, model, index, prompts)
    virtual = VirtualTokens.of(model)
    if virtual is not None:
        prompts = [virtual.before(prompt) for prompt in prompts]
    option = cache_option(model)
    if option is None:
        return _recomputed(model, virtual or model, index, prompts)
    parts: list[AnyRows] = []
    known: dict[int, States] = {}
    if states is not None and virtual is None:
        known = {i: one for i, one in enumerate(states) if one is not None and len(prompts[i]) > 1}
    if known:
        parts.append(_from_states(model, option, index, prompts, lengths, known))
    others = [i for i in range(len(prompts)) if i not in known]
    for places in length_groups([len(prompts[i]) for i in others], limit):
        group = [others[place] for place in places]
        some = [prompts[i] for i in group], [lengths[i] for i in group]
        part = Rows(model, virtual or model, option, [index[i] for i in group], *some)
        if not part.has_cache:  # the model accepts a cache but returns none
            return _recomputed(model, virtual or model, index, prompts)
        parts.append(part)
    return parts


def _from_states(
    model: nn.Module,
    option: str,
    index: list[int],
    prompts: Sequence[Tensor],
    lengths: Sequence[int],
    known: Mapping[int, States],
) -> Rows:
    """Rows of the prompts whose keys and values are known; only their last tokens are to be read."""
    cut = [tuple((k[:, : len(prompts[i]) - 1], v[:, : len(prompts[i]) - 1]) for k, v in known[i]) for i in known]
    cache = cache_of(cut, next(model.parameters()).device)
    some = [index[i] for i in known], [prompts[i] for i in known], [lengths[i] for i in known]
    return Rows(model, model, option, *some, cache)


def merged(parts: list[AnyRows]) -> list[AnyRows]:
    """All rows in one batch; the given ones, unchanged, if their caches cannot be merged."""
    plain = [part for part in parts if isinstance(part, Rows)]
    if len(plain) == len(parts) and plain[0].absorb(plain[1:]):
        return [plain[0]]
    return parts


def _recomputed(
    model: nn.Module, call: Callable[..., Any], index: list[int], prompts: Sequence[Tensor]
) -> list[AnyRows]:
    groups = groups_of_one_length(prompts)
    return [RecomputedRows(model, call, [index[i] for i in g], [prompts[i] for i in g]) for g in groups]
