"""Compare losses with those before training, taking noise into account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from lit_mem.audit.table import ScoreTable
from lit_mem.errors import CheckpointError
from lit_mem.functional.paired import Change, change_of_loss

_COLUMNS: Final = ("example_id", "member", "logprob", "n_tokens")
_CHANGES: Final = ("fall", "rise", "members")
_CHANCE: Final = 0.025
_LEAST_SHARE: Final = 0.01


class Learning:
    """Compares each validation's losses with those before training, text by text.

    A change counts if it is more than noise (a one-sided t test over paired texts, `functional.paired`, at 2.5 %
    divided by the number of validations, as the largest change is tested) and at least 1 % of the held-out loss before
    training.

    Attributes:
        before: losses before training: columns `logprob` and `n_tokens`; None if not measured.
        loss_before: mean loss of the held-out texts before training, in nats per token.
        fall: largest decrease of the held-out loss so far; None before the first validation.
        rise: smallest decrease of the held-out loss so far, negative if it increased; None before the first validation.
        members: largest decrease of the members' loss so far; None also without scored members.
        looks: number of validations compared.
    """

    def __init__(self) -> None:
        self.before: ScoreTable | None = None
        self.loss_before = 0.0
        self.fall: Change | None = None
        self.rise: Change | None = None
        self.members: Change | None = None
        self.looks = 0

    def start(self, table: ScoreTable) -> None:
        """Set the losses before training, of members and held-out texts."""
        self.before = table.where(table["n_tokens"] > 0)
        self.fall = self.rise = self.members = None
        self.looks = 0
        heldout = self.before.nonmembers()
        if not len(heldout):
            self.before = None
            return
        self.loss_before = -(heldout["logprob"].sum() / heldout["n_tokens"].sum()).item()

    def note(self, table: ScoreTable) -> None:
        """Add the losses of a validation, over the same texts."""
        if self.before is None:
            return
        now = table.where(table["n_tokens"] > 0)
        fall = _fall(self.before.nonmembers(), now.nonmembers())
        if fall is None:
            return
        self.looks += 1
        if self.fall is None or fall.value > self.fall.value:
            self.fall = fall
        if self.rise is None or fall.value < self.rise.value:
            self.rise = fall
        members = _fall(self.before.members(), now.members())
        if members is not None and (self.members is None or members.value > self.members.value):
            self.members = members

    def _counts(self, change: Change | None, sign: float = 1.0) -> bool:
        if change is None:
            return False
        change = change._replace(value=sign * change.value)
        noise = not change.beyond_noise(_CHANCE / max(1, self.looks))
        return not noise and change.value >= _LEAST_SHARE * self.loss_before

    @property
    def hardly_changed(self) -> bool:
        """Whether neither the held-out loss nor the members' has changed; False if not known."""
        changed = self._counts(self.fall) or self._counts(self.rise, -1.0) or self._counts(self.members)
        return self.fall is not None and not changed

    @property
    def not_improved(self) -> bool:
        """Whether the model has changed without a lower held-out loss; False if not known."""
        return self.fall is not None and not self._counts(self.fall) and not self.hardly_changed

    def line(self) -> str:
        """How far the held-out loss has decreased, for a model that hardly changed or did not improve."""
        assert self.fall is not None
        assert self.rise is not None
        lowest, highest = (f"{self.loss_before - each.value:.3f}" for each in (self.fall, self.rise))
        if self.not_improved:
            return (
                f"The held-out loss never fell below its value before training by more than noise and 1 %: it was "
                f"{self.loss_before:.3f} nats per token before training, and since then between {lowest} and "
                f"{highest}"
            )
        side = "more" if self.fall.value < 0 else "less"
        return (
            f"The model hardly learned: the held-out loss was {self.loss_before:.3f} nats per token before training "
            f"and {lowest} at its lowest, {abs(self.fall.value):.4f} {side} (standard error {self.fall.error:.4f})"
        )

    def state(self) -> dict[str, Any]:
        """State for the checkpoint."""
        if self.before is None:
            return {}
        tensors = {"example_id": self.before.example_id, "member": self.before.member, **self.before.columns}
        changes = {name: getattr(self, name) for name in _CHANGES}
        return {
            "before": tensors,
            **{name: None if change is None else list(change) for name, change in changes.items()},
            "looks": self.looks,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state; {} if an earlier version wrote it, or nothing was known.

        Raises:
            CheckpointError: it is malformed.
        """
        if state == {}:
            return
        _check(state)
        columns = dict(state["before"])
        self.start(ScoreTable(columns.pop("example_id"), columns.pop("member"), columns))
        found = {name: state.get(name) for name in _CHANGES}
        fall, rise, self.members = (None if one is None else Change(*one) for one in found.values())
        # An earlier version stored neither the highest loss nor the number of validations.
        self.fall, self.rise, self.looks = fall, rise or fall, int(state.get("looks", 1))


def _check(state: Any) -> None:
    """Raise unless there is one value per column and text, and each change is three numbers or None."""
    before = state.get("before") if isinstance(state, Mapping) else None
    found = [before.get(name) if isinstance(before, Mapping) else None for name in _COLUMNS]
    shapes = {tuple(each.shape) if isinstance(each, Tensor) and each.dim() == 1 else None for each in found}
    if None in shapes or len(shapes) != 1:
        raise CheckpointError(
            f"this checkpoint is damaged: its learning.before lacks one of {', '.join(_COLUMNS)}, as (N,) tensors"
        )
    for name in _CHANGES:
        change = state.get(name, () if name == "fall" else None)
        if change is not None and not (
            isinstance(change, list | tuple) and len(change) == 3 and all(isinstance(x, int | float) for x in change)
        ):
            raise CheckpointError(f"this checkpoint is damaged: its learning.{name} is not three numbers or None")


def _fall(before: ScoreTable, now: ScoreTable) -> Change | None:
    """Decrease of the mean loss per token; None without texts, or if the texts differ."""
    if not len(before) or now.example_id.tolist() != before.example_id.tolist():
        return None
    return change_of_loss(-now["logprob"], -before["logprob"], now["n_tokens"])
