"""Reference scores on disk: what the frozen model says of a batch is computed once, not once a run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

log = logging.getLogger(__name__)


class ReferenceStore:
    """One small file for each batch, in a folder for each setting under which the scores are the same to the last bit.

    Which batch a file belongs to is told by a digest of its tokens, of which of them are scored, and of its shape, as
    the same text in another batch may differ by rounding. A file holds log-probabilities and greedy hits, no text and
    no tokens. Each process writes a file of its own and renames it into place, so that runs at the same time only do
    the same work twice. A file that is damaged is computed again; a folder that cannot be written to is done without.

    Args:
        root: folder of all settings.
        settings: all that the scores depend on beside the batch, by name.
    """

    def __init__(self, root: Path, settings: Mapping[str, str]) -> None:
        told = json.dumps(dict(settings), sort_keys=True)
        self.folder = root / hashlib.sha256(told.encode()).hexdigest()[:16]
        self.loaded = 0
        self._usable = True

    def load(self, key: bytes, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        """What was stored of a batch: (B, T) float32 log-probabilities in nats and (B, T) bool hits, on the CPU.

        Args:
            key: of the batch.
            shape: (B, T), which the scores must have.

        Returns:
            None if there is nothing, or nothing whole.
        """
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                stored = {name: file.get_tensor(name) for name in ("logprob", "hit")}
                digest = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        logprob, hit = stored["logprob"], stored["hit"]
        if digest != _digest(logprob, hit) or logprob.shape != shape or hit.shape != shape:
            log.warning("%s is damaged; the reference scores it held are computed again.", path)
            return None
        self.loaded += 1
        return logprob, hit

    def save(self, key: bytes, logprob: Tensor, hit: Tensor) -> None:
        """Store a batch's scores; on failure say so once, and store nothing from then on."""
        if not self._usable:
            return
        path = self._path(key)
        tensors = {"logprob": logprob.float().contiguous(), "hit": hit.contiguous()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(save(tensors, {"sha256": _digest(**tensors)}))
                os.replace(name, path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            self._usable = False
            log.warning("Reference scores are not kept for later runs: %s: %s.", self.folder, error.strerror)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key.hex()}.safetensors"


def batch_key(input_ids: Tensor, scored: Tensor) -> bytes:
    """16 bytes that tell one batch from another: tokens, scored positions and shape, all on the CPU.

    What follows a row's last scored token changes no score, but its place is part of the shape.

    Args:
        input_ids: (B, T) int64.
        scored: (B, T) bool.
    """
    digest = hashlib.blake2b(str(tuple(input_ids.shape)).encode(), digest_size=16)
    digest.update(input_ids.numpy().tobytes())
    digest.update(scored.to(torch.uint8).numpy().tobytes())
    return digest.digest()


def _digest(logprob: Tensor, hit: Tensor) -> str:
    return hashlib.sha256(logprob.numpy().tobytes() + hit.numpy().tobytes()).hexdigest()
