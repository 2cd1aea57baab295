"""The frozen reference model (the untuned base), which scores each example once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_mem.scoring.reference_store import ReferenceStore, batch_key
from lit_mem.scoring.scorer import scored_positions
from lit_mem.types import Batch, TokenScores


@dataclass
class Reference:
    """The model that the tuned one is compared with.

    Attributes:
        kind: "adapter_off" turns the adapter off (no second copy in memory), "copy" loads a separate frozen copy,
            "auto" uses the first if it restores the base exactly, else the second.
        model_id: another model as the reference (same tokenizer); None: the base model itself. Implies "copy".
        cache: cache its scores on disk (in `~/.cache/lit_mem/reference`, or below `$LIT_MEM_CACHE` or
            `$XDG_CACHE_HOME`), so that a second run on the same texts computes none. The files hold log-probabilities,
            no text, and are encrypted, since anyone with the model could reconstruct the texts from them.
    """

    kind: Literal["auto", "adapter_off", "copy"] = "auto"
    model_id: str | None = None
    cache: bool = True


class ReferenceCache:
    """Reference scores by example, so that the frozen model scores each example only once.

    The key is the example's id, its tokens and its scored positions, so that other data under the same ids is never
    served from the cache.

    Attributes:
        computed: number of examples scored by a model, not read from memory or disk.
        store: persistent store of scores; None without one.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[int, bytes], tuple[Tensor, Tensor]] = {}
        self.computed = 0
        self.store: ReferenceStore | None = None

    def clear(self) -> None:
        """Reset, as for another precision or device, whose scores differ by rounding."""
        self._rows, self.computed, self.store = {}, 0, None

    def __len__(self) -> int:
        return len(self._rows)

    def scores(self, batch: Batch, compute: Callable[[Batch], TokenScores]) -> tuple[Tensor, Tensor]:
        """(B, T) float32 log-probabilities under the reference, and (B, T) bool greedy hits; 0 at unscored positions.

        Args:
            batch: the examples.
            compute: scores a batch with the reference model; called only if an example is new.
        """
        keys = self._keys(batch)
        if any(key not in self._rows for key in keys):
            # The whole batch, even if some are known: with the same shapes as the tuned model's pass, rounding is the
            # same, so that an untrained adapter equals its base exactly.
            self._rows.update(zip(keys, zip(*self._whole(batch, compute), strict=True), strict=True))
        width, device = batch["input_ids"].shape[1], batch["input_ids"].device
        logprob, hit = zip(*(self._rows[key] for key in keys), strict=True)
        return (
            torch.stack([_fitted(row, width) for row in logprob]).to(device),
            torch.stack([_fitted(row, width) for row in hit]).to(device),
        )

    def _whole(self, batch: Batch, compute: Callable[[Batch], TokenScores]) -> tuple[Tensor, Tensor]:
        """(B, T) log-probabilities and hits of a batch on the CPU, from disk if stored."""
        key = _of_batch(batch) if self.store else b""
        stored = self.store.load(key, tuple(batch["input_ids"].shape)) if self.store else None
        if stored is not None:
            return stored
        fresh = compute(batch)
        self.computed += len(fresh.example_id)
        logprob, hit = fresh.logprob.cpu(), fresh.hit.cpu()
        if self.store:
            self.store.save(key, logprob, hit)
        return logprob, hit

    @staticmethod
    def _keys(batch: Batch) -> list[tuple[int, bytes]]:
        ids, scored = batch["input_ids"].cpu(), scored_positions(batch).cpu()
        keys = []
        windows = batch.get("windows", [None] * len(ids))
        for example_id, row, mask, read in zip(batch["example_id"].tolist(), ids, scored, windows, strict=True):
            # Tokens after the last scored one change no score, and padding depends on the batch.
            length = int(mask.nonzero().max()) + 1 if mask.any() else 0
            content = torch.stack([row[:length], mask[:length].long()]).numpy().tobytes()
            content += b"" if read is None else repr(read).encode()
            keys.append((example_id, hashlib.blake2b(content, digest_size=16).digest()))
        return keys


def _of_batch(batch: Batch) -> bytes:
    windows = repr(batch["windows"]).encode() if "windows" in batch else b""
    return batch_key(batch["input_ids"].cpu(), scored_positions(batch).cpu(), windows)


def _fitted(row: Tensor, width: int) -> Tensor:
    """A row truncated or zero-padded to the width of another batch."""
    return torch.nn.functional.pad(row, (0, width - len(row))) if len(row) < width else row[:width]
