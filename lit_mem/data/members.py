"""Keyed digests of the texts a model was trained on, to compare a checkpoint with a split.

A different seed, or rows added to a file, change the split. Texts that the model was trained on may then be held out,
which silently invalidates every memorization metric.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from lit_mem.errors import CheckpointError
from lit_mem.models.checkpoint import MemberDigests

if TYPE_CHECKING:
    from datasets import Dataset

    from lit_mem.data.encoding import Encoded

log = logging.getLogger(__name__)

Digests = np.ndarray[Any, np.dtype[np.uint64]]

_SIZE: Final = 8
_SALT_SIZE: Final = 16
_BATCH: Final = 10_000
_FEW: Final = 5
_SMALL_SHARE: Final = 0.01

_COINS: Final = "data.canaries, its seed and repetitions"
_SUBSET: Final = "data.source, data.seed and data.train_size"
_SPLIT: Final = (
    "data.source, data.seed and data.heldout_fraction (a file with other rows or another name is split differently, "
    "unless the held-out texts have their own file)"
)


@dataclass(frozen=True)
class Sides:
    """The texts of a run by set.

    Attributes:
        members: (M,) training rows, with columns `prompt` and `completion`, which count as one text.
        others: (N,) rows that they are compared with, likewise.
        name: kind of the others: "held-out" or "test".
        canaries: all canaries, inserted and held out.
    """

    members: Dataset
    others: Dataset
    name: str = "held-out"
    canaries: Sequence[Encoded] = ()


class KnownMembers:
    """The texts that a model was trained on so far, and the canaries that were held out.

    Linear time and memory: 8 bytes per text. Two distinct texts collide with probability 2^-64.

    Args:
        state: digests of a checkpoint, or None.
        origin: the checkpoint, for messages.
    """

    def __init__(self, state: MemberDigests | None = None, origin: str = "this checkpoint") -> None:
        self.origin = origin
        # Not from torch's or Python's generator, which training uses.
        self._salt = secrets.token_bytes(_SALT_SIZE) if state is None else bytes(state["salt"].tolist())
        self._members = _unpacked(None if state is None else state["members"])
        self._left_out = _unpacked(None if state is None else state["left_out"])

    def state(self) -> MemberDigests | None:
        """The digests for a checkpoint; None if nothing is known."""
        if not len(self._members):
            return None
        return {
            "salt": torch.tensor(list(self._salt), dtype=torch.uint8),
            "members": _packed(self._members),
            "left_out": _packed(self._left_out),
        }

    def same_as(self, other: KnownMembers) -> bool:
        """Whether both have the same texts, by digests with one salt; two empty ones are equal."""
        if not len(self._members):
            return not len(other._members)
        ours, theirs = (self._members, self._left_out), (other._members, other._left_out)
        return self._salt == other._salt and all(map(np.array_equal, ours, theirs))

    def compare(self, sides: Sides, training: bool) -> None:
        """Reject texts that change sides (warn if few), warn about unknown members, and add them.

        A text on both sides of this run is ignored here: the data checks warn about it.

        Args:
            sides: texts of the starting run.
            training: whether it trains on its members; only then are they added.

        Raises:
            CheckpointError: known members are held out now (more than 5 texts or 1 %), an inserted canary is now held
                out, or a held-out one inserted.
        """
        if not len(self._members) and not training:
            return
        inserted = [canary for canary in sides.canaries if canary.member]
        left_out = self._digests(_text(canary) for canary in sides.canaries if not canary.member)
        members = self._digests(texts_of(sides.members))
        put_in = self._digests(map(_text, inserted))
        # The number of repetitions is part of their identity.
        as_often = self._digests(f"{_text(canary)}\0{canary.repetitions}" for canary in inserted)
        if len(self._members):
            others = self._digests(texts_of(sides.others))
            swapped = np.isin(others, self._members) & ~np.isin(others, members)
            if 0 < (n := int(swapped.sum())) <= min(_FEW, _SMALL_SHARE * len(swapped)):
                log.warning(
                    "%d of %d %s texts were trained on in the run of %s, but count as not trained on in every metric. "
                    "So few may be sentences that occur in many texts; if not, check %s.",
                    n, len(swapped), sides.name, self.origin, _SPLIT,
                )  # fmt: skip
            else:
                self._reject(swapped, f"{sides.name} texts", "trained on", _SPLIT)
            self._reject(np.isin(left_out, self._members), "held-out canaries", "inserted", _COINS)
            self._reject(np.isin(put_in, self._left_out), "inserted canaries", "held out", _COINS)
            self._warn(~np.isin(members, self._members), "members", "trained on", training, _SUBSET)
            self._warn(~np.isin(as_often, self._members), "canaries", "inserted (or not as often)", training, _COINS)
        if training:
            self._members = np.unique(np.concatenate([self._members, members, put_in, as_often]))
            self._left_out = np.unique(np.concatenate([self._left_out, left_out]))

    def _reject(self, found: np.ndarray[Any, Any], what: str, was: str, options: str) -> None:
        if found.any():
            raise CheckpointError(
                f"{int(found.sum())} of {len(found)} {what} were {was} in the run of {self.origin}, which invalidates "
                f"every metric; expected the same split as in that run: check {options}"
            )

    def _warn(self, unknown: np.ndarray[Any, Any], what: str, was: str, training: bool, options: str) -> None:
        if unknown.any():
            now = "they are from now on" if training else "they count as such, which makes every metric too low"
            log.warning(
                "%d of %d %s were not %s in the run of %s; %s. Check %s.",
                int(unknown.sum()), len(unknown), what, was, self.origin, now, options,
            )  # fmt: skip

    def _digests(self, texts: Iterable[str]) -> Digests:
        digest, salt = hashlib.blake2b, self._salt
        joined = b"".join(
            digest(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE, key=salt).digest() for text in texts
        )
        return np.frombuffer(joined, np.uint64)


def _text(canary: Encoded) -> str:
    assert canary.record is not None
    return canary.record.text


def texts_of(rows: Dataset) -> Iterator[str]:
    """The text of each row: its prompt and completion as one."""
    for batch in rows.select_columns(["prompt", "completion"]).iter(_BATCH):
        for prompt, completion in zip(batch["prompt"], batch["completion"], strict=True):
            yield prompt + completion


def _packed(digests: Digests) -> torch.Tensor:
    """(N, 8) uint8, sorted, so that the order of rows is not revealed."""
    return torch.from_numpy(digests.view(np.uint8).reshape(-1, _SIZE).copy())


def _unpacked(packed: torch.Tensor | None) -> Digests:
    if packed is None:
        return np.empty(0, np.uint64)
    return packed.cpu().contiguous().numpy().reshape(-1).view(np.uint64).copy()
