"""A table with one row an example, the same on every rank: what all set-level figures are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ScoreTable:
    """Per-example numbers of a whole set, one row an example id, sorted by id.

    Attributes:
        example_id: (N,) int64, ascending, unique.
        member: (N,) bool.
        columns: name -> (N,) float64.
    """

    def __init__(self, example_id: Tensor, member: Tensor, columns: Mapping[str, Tensor]) -> None:
        self.example_id = example_id
        self.member = member
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(self.example_id)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def where(self, keep: Tensor) -> ScoreTable:
        """The rows where `keep`, (N,) bool, is True."""
        return ScoreTable(self.example_id[keep], self.member[keep], {k: v[keep] for k, v in self.columns.items()})

    def renamed(self, names: Mapping[str, str]) -> ScoreTable:
        """Some columns under other names: `names` gives for each new name the old one."""
        return ScoreTable(self.example_id, self.member, {new: self.columns[old] for new, old in names.items()})

    def members(self) -> ScoreTable:
        """The members' rows."""
        return self.where(self.member)

    def nonmembers(self) -> ScoreTable:
        """The non-members' rows."""
        return self.where(~self.member)


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """The tables side by side, a row for each example that is in any; NaN where a table has no such row."""
    if not tables:
        empty = torch.empty(0)
        return ScoreTable(empty.long(), empty.bool(), {})
    example_id: Tensor = torch.cat([table.example_id for table in tables]).unique()  # type: ignore[no-untyped-call]
    member = torch.zeros(len(example_id), dtype=torch.bool)
    columns: dict[str, Tensor] = {}
    for table in tables:
        at = torch.searchsorted(example_id, table.example_id)
        member[at] = table.member
        for name, values in table.columns.items():
            columns[name] = torch.full((len(example_id),), torch.nan, dtype=torch.float64)
            columns[name][at] = values
    return ScoreTable(example_id, member, columns)


class ExampleTable(Metric):
    """Gathers one row an example over batches and ranks.

    Figures such as an AUROC are not means over ranks: they need all rows in one place. And a sampler that
    deals out equal shares repeats a few examples: a row that comes twice under one id counts once.

    Args:
        columns: names of the numbers kept for each example.
    """

    full_state_update = False

    def __init__(self, columns: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = tuple(columns)
        self.add_state("ids", default=[], dist_reduce_fx="cat")
        self.add_state("flags", default=[], dist_reduce_fx="cat")
        for i in range(len(self.columns)):
            self.add_state(f"column_{i}", default=[], dist_reduce_fx="cat")

    @property
    def update_called(self) -> bool:
        """Always True: a table without rows is an answer, not the mistake that torchmetrics warns of."""
        return True

    def update(self, example_id: Tensor, member: Tensor, values: Mapping[str, Tensor]) -> None:
        """Add examples.

        Args:
            example_id: (B,) int64.
            member: (B,) bool.
            values: for every column, (B,) real numbers.
        """
        # The wide types live on the CPU between batches: some accelerators have no float64.
        self._list("ids").append(example_id.detach().cpu())
        self._list("flags").append(member.detach().cpu().to(torch.uint8))
        for i, name in enumerate(self.columns):
            self._list(f"column_{i}").append(values[name].detach().cpu().to(torch.float64))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the rows of all ranks; a rank without any takes part with empty tensors of the right types."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        if not self._list("ids"):
            empty = torch.empty(0)
            self.update(empty.long(), empty.bool(), {name: empty for name in self.columns})
        device = _collective_device()
        for name in self._defaults:
            setattr(self, name, [torch.cat(getattr(self, name)).to(device)])
        super().sync(*args, **kwargs)

    def compute(self) -> ScoreTable:
        """All rows seen by all ranks since the last reset, on the CPU."""
        ids = self._rows("ids")
        if not ids.numel():
            empty = torch.empty(0, dtype=torch.float64)
            return ScoreTable(empty.long(), empty.bool(), {name: empty for name in self.columns})
        order = ids.argsort(stable=True)
        first = torch.ones_like(ids, dtype=torch.bool)
        first[1:] = ids[order][1:] != ids[order][:-1]
        keep = order[first]
        columns = {name: self._rows(f"column_{i}")[keep] for i, name in enumerate(self.columns)}
        return ScoreTable(ids[keep], self._rows("flags")[keep].bool(), columns)

    def _list(self, name: str) -> list[Tensor]:
        state: list[Tensor] = getattr(self, name)
        return state

    def _rows(self, name: str) -> Tensor:
        """One tensor, whether the state is a list (one process) or already gathered (several)."""
        state: list[Tensor] | Tensor = getattr(self, name)
        if isinstance(state, Tensor):
            return state.cpu()
        return torch.cat(state).cpu() if state else torch.empty(0)


def _collective_device() -> torch.device:
    """Where tensors must lie to be gathered."""
    if torch.distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
