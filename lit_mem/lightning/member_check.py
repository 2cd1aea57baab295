"""Check a model's known members against the texts of a run, before any is scored."""

from __future__ import annotations

import logging
from copy import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lit_mem.data.members import KnownMembers, Sides
from lit_mem.files.untrusted import read_json
from lit_mem.models.checkpoint import CheckpointContent, own_content, read_content

log = logging.getLogger(__name__)


class MemberCheck:
    """The members that one module was trained on, over any number of data modules.

    A data module takes part if it has a method `sides`; without it nothing is checked.

    Attributes:
        known: the members so far.
    """

    def __init__(self) -> None:
        self.known = KnownMembers(origin="this model")
        self._next: KnownMembers | None = None
        self._unknown_origin = False
        self._done = False

    def begin(self) -> None:
        """Reset at the set-up of a fit, validation or test, whose data may differ."""
        self._next, self._done = None, False

    def load(self, content: CheckpointContent) -> None:
        """Load the members stored in a checkpoint; see `compare`."""
        state = content.get("members")
        loaded = KnownMembers(state)
        if self._done and loaded.same_as(self.known):
            return  # another checkpoint of the same run
        self.known, self._unknown_origin = loaded, state is None
        self._next, self._done = None, False

    def start_from(self, adapter_path: str, trainer: pl.Trainer | None = None) -> None:
        """Load the members of the checkpoint beside an exported adapter, if there is one of the same step.

        Rank zero reads it for all: if only some ranks could read it, only they would reject a split.
        """
        if trainer is None:
            found = members_beside(adapter_path)
        else:
            found = trainer.strategy.broadcast(members_beside(adapter_path) if trainer.is_global_zero else None)
        self.known = found or self.known

    def save(self, content: CheckpointContent) -> None:
        """Add the members to a checkpoint."""
        if (state := self.known.state()) is not None:
            content["members"] = state

    def compare(self, trainer: pl.Trainer) -> None:
        """Compare with the texts of the trainer's data module; a second call in a run does nothing.

        Raises:
            CheckpointError: see `KnownMembers.compare`.
        """
        sides: Any = getattr(getattr(trainer, "datamodule", None), "sides", None)
        if self._done or sides is None or (found := sides()) is None:
            return
        assert isinstance(found, Sides)
        self._done = True
        if self._unknown_origin:
            self._unknown_origin = False
            log.warning(
                "This checkpoint has no digests of its members (an earlier version wrote it, or its data gave none): "
                "it cannot be checked whether held-out texts were trained on."
            )
        training = trainer.state.fn == "fit"
        after = copy(self.known)
        after.compare(found, training)
        self._next = after if training else None

    def trains(self) -> None:
        """Called when a step is taken: from now on this fit's members count as trained on."""
        if self._next is not None:
            self.known, self._next = self._next, None


def members_beside(adapter_path: str) -> KnownMembers | None:
    """The members of the checkpoint beside an exported adapter (`best.ckpt` beside `best-adapter`).

    The adapter's own folder has no digests: it is meant to be published, and digests can confirm a guess of a training
    text.

    Returns:
        The members; None without a readable checkpoint of the same step.
    """
    folder = Path(adapter_path).absolute()  # "." has no name
    path = folder.with_name(folder.name.removesuffix("-adapter") + ".ckpt")
    try:
        step = read_json(folder / "lit_mem.json")["global_step"]
        checkpoint = read_content(path, mmap=True)
        state = own_content(checkpoint).get("members")
    except Exception:  # either file may be damaged; the user named neither
        return None
    if state is None or checkpoint["global_step"] != step:
        return None
    return KnownMembers(state, origin=f"model.adapter_path {adapter_path} ({path.name} beside it)")
