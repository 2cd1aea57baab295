"""A model's known members against the texts of a run: once a fit, validation or test, before any is scored."""

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
    """The members that one module was trained on, whatever data modules it meets.

    A data module takes part by its method `sides`; of others nothing is known, and nothing is checked.

    Attributes:
        known: the members so far.
    """

    def __init__(self) -> None:
        self.known = KnownMembers(origin="this model")
        self._next: KnownMembers | None = None
        self._unknown_origin = False
        self._done = False

    def begin(self) -> None:
        """A fit, validation or test is set up; its data may be others."""
        self._next, self._done = None, False

    def load(self, content: CheckpointContent) -> None:
        """Take over what a checkpoint knows; see `compare`."""
        state = content.get("members")
        loaded = KnownMembers(state)
        if self._done and loaded.same_as(self.known):
            return  # another checkpoint of one run
        self.known, self._unknown_origin = loaded, state is None
        self._next, self._done = None, False

    def start_from(self, adapter_path: str, trainer: pl.Trainer | None = None) -> None:
        """Take over what the checkpoint beside an exported adapter knows, if there is one of the same step.

        Rank zero reads it for all: where only some could read it, these alone would reject a split.
        """
        if trainer is None:
            found = members_beside(adapter_path)
        else:
            found = trainer.strategy.broadcast(members_beside(adapter_path) if trainer.is_global_zero else None)
        self.known = found or self.known

    def save(self, content: CheckpointContent) -> None:
        """Add what is known to a checkpoint."""
        if (state := self.known.state()) is not None:
            content["members"] = state

    def compare(self, trainer: pl.Trainer) -> None:
        """Compare with the texts of the trainer's data module; the second call of a run does nothing.

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
                "whether held-out texts were trained on cannot be checked."
            )
        training = trainer.state.fn == "fit"
        after = copy(self.known)
        after.compare(found, training)
        self._next = after if training else None

    def trains(self) -> None:
        """A step is taken: what `compare` found as this fit's members was trained on."""
        if self._next is not None:
            self.known, self._next = self._next, None


def members_beside(adapter_path: str) -> KnownMembers | None:
    """What the checkpoint beside an exported adapter (`best.ckpt` beside `best-adapter`) knows.

    The adapter's own folder has no digests: it is what people publish, and who has digests can confirm a guess of a
    text that was trained on.

    Returns:
        The members; None where no checkpoint of the same step lies there, or one that cannot be read.
    """
    folder = Path(adapter_path).absolute()  # "." has no name
    path = folder.with_name(folder.name.removesuffix("-adapter") + ".ckpt")
    try:
        step = read_json(folder / "lit_mem.json")["global_step"]
        checkpoint = read_content(path, mmap=True)
        state = own_content(checkpoint).get("members")
    except Exception:  # either file may be damaged, and neither was named by the user
        return None
    if state is None or checkpoint["global_step"] != step:
        return None
    return KnownMembers(state, origin=f"model.adapter_path {adapter_path} ({path.name} beside it)")
