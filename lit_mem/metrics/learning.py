"""How far the held-out loss has fallen since before training, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from lit_mem.errors import CheckpointError
from lit_mem.functional.paired import Change, change_of_loss
from lit_mem.metrics.examples import ScoreTable

_COLUMNS: Final = ("example_id", "member", "logprob", "n_tokens")
_CHANCE: Final = 0.025
_LEAST_SHARE: Final = 0.01


class Learning:
    """Compares each validation's held-out losses with those before training, text by text.

    A model has hardly learned where its lowest held-out loss is below that before training by no more than noise (a
    one-sided t test at 2.5 % over texts paired with themselves, `functional.paired`) or by less than 1 % of it.

    Attributes:
        before: held-out losses before training: columns `logprob` and `n_tokens`; None: they were not measured.
        loss_before: their mean, in nats a token.
        fall: the largest fall so far; None before the first validation.
    """

    def __init__(self) -> None:
        self.before: ScoreTable | None = None
        self.loss_before = 0.0
        self.fall: Change | None = None

    def start(self, table: ScoreTable) -> None:
        """Take the held-out texts' losses before training."""
        self.before, self.fall = table.where(table["n_tokens"] > 0), None
        self.loss_before = -(self.before["logprob"].sum() / self.before["n_tokens"].sum()).item()

    def note(self, table: ScoreTable) -> None:
        """Take those of a validation, of the same texts."""
        if self.before is None:
            return
        now = table.where(table["n_tokens"] > 0)
        if now.example_id.tolist() != self.before.example_id.tolist():
            return
        fall = change_of_loss(-now["logprob"], -self.before["logprob"], now["n_tokens"])
        if self.fall is None or fall.value > self.fall.value:
            self.fall = fall

    @property
    def hardly(self) -> bool:
        """Whether the model has hardly learned; False where that is not known."""
        if self.fall is None:
            return False
        return not self.fall.beyond_noise(_CHANCE) or self.fall.value < _LEAST_SHARE * self.loss_before

    def line(self) -> str:
        """How far the loss has fallen; for a model that has hardly learned."""
        assert self.fall is not None
        return (
            f"The model hardly learned: the held-out loss was {self.loss_before:.3f} nats a token before training and "
            f"{self.loss_before - self.fall.value:.3f} at its lowest, {self.fall.value:.4f} less (standard error "
            f"{self.fall.error:.4f})"
        )

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        if self.before is None:
            return {}
        tensors = {"example_id": self.before.example_id, "member": self.before.member, **self.before.columns}
        return {"before": tensors, "fall": None if self.fall is None else list(self.fall)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from it; {}: of an earlier version, or nothing was known.

        Raises:
            CheckpointError: it is not what `state` gives.
        """
        if state == {}:
            return
        _check(state)
        columns = dict(state["before"])
        self.start(ScoreTable(columns.pop("example_id"), columns.pop("member"), columns))
        self.fall = None if state["fall"] is None else Change(*state["fall"])


def _check(state: Any) -> None:
    """Raise unless there is one number of each kind for each text, and a fall of three numbers or none."""
    before = state.get("before") if isinstance(state, Mapping) else None
    found = [before.get(name) if isinstance(before, Mapping) else None for name in _COLUMNS]
    shapes = {tuple(each.shape) if isinstance(each, Tensor) and each.dim() == 1 else None for each in found}
    if None in shapes or len(shapes) != 1:
        raise CheckpointError(
            f"this checkpoint is damaged: its learning.before lacks one of {', '.join(_COLUMNS)}, as (N,) tensors"
        )
    fall = state.get("fall", ())
    if fall is not None and not (
        isinstance(fall, list | tuple) and len(fall) == 3 and all(isinstance(value, int | float) for value in fall)
    ):
        raise CheckpointError("this checkpoint is damaged: its learning.fall is not three numbers or None")
