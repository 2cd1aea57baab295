"""Reference scores on disk: what the frozen model says of a batch is computed once, not once a run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lit_mem.files import modes
from lit_mem.files.atomic import whole

log = logging.getLogger(__name__)

FORMAT: Final = 2
"""Of the files; another one is looked for elsewhere, as the seal of an older one would open to noise."""

_NAME_BYTES: Final = 16
_LEFT_AFTER_SECONDS: Final = 3600.0
"""A file is written within moments: an unfinished one of this age is of a process that was killed."""


class ReferenceStore:
    """One small file for each batch, in a folder for each setting under which the scores are the same to the last bit.

    A file is named by a digest of its batch: the tokens, which of them are scored, and the shape, as the same text in
    another batch may differ by rounding. It holds log-probabilities and greedy hits, no text and no tokens; and as the
    base model would spell a text from its log-probabilities, token by token, they are sealed with what only the texts
    themselves give. Files are written whole (`files.atomic`), so that runs at the same time only do the same work
    twice. A file that is damaged is computed again; where the folder cannot be written to, nothing is stored.

    Args:
        root: folder of all settings.
        settings: all that the scores depend on beside the batch, by name.
    """

    def __init__(self, root: Path, settings: Mapping[str, str]) -> None:
        given = json.dumps(dict(settings) | {"format": FORMAT}, sort_keys=True)
        self.folder = root / hashlib.sha256(given.encode()).hexdigest()[:16]
        self.loaded = 0
        self._usable = True
        self._cleared = False

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
                sealed = file.get_tensor("sealed").numpy().tobytes()
                digest = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        n = math.prod(shape)
        if digest != _digest(key, sealed) or len(sealed) != 5 * n:
            log.warning("%s is damaged; the reference scores it held are computed again.", path)
            return None
        self.loaded += 1
        opened = torch.from_numpy(self._sealed(key, sealed))
        return opened[: 4 * n].view(torch.float32).view(shape), opened[4 * n :].view(torch.bool).view(shape)

    def save(self, key: bytes, logprob: Tensor, hit: Tensor) -> None:
        """Store a batch's scores; on failure say so once, and store nothing from then on."""
        if not self._usable:
            return
        path = self._path(key)
        sealed = self._sealed(key, logprob.float().numpy().tobytes() + hit.numpy().tobytes())
        try:
            for folder in (self.folder.parent, self.folder):
                modes.make_folder(folder)
                modes.restrict(folder)  # earlier versions made it for all to read
            self._clear()
            content = save({"sealed": torch.from_numpy(sealed)}, {"sha256": _digest(key, sealed.tobytes())})
            with whole(path, shared=True) as part:
                part.write_bytes(content)
        except OSError as error:
            self._usable = False
            log.warning("Reference scores are not kept for later runs: %s: %s.", self.folder, error.strerror)

    def _clear(self) -> None:
        """Remove, once, the unfinished files of processes that were killed."""
        if self._cleared:
            return
        self._cleared = True
        for path in self.folder.glob(".*.part"):
            with suppress(OSError):  # another process may do the same
                if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                    path.unlink()

    def _sealed(self, key: bytes, content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(n,) bytes of what is to be sealed, or was."""
        # No stream serves two settings: of two files under one, the difference would be that of two models' scores.
        stream = hashlib.shake_256(self.folder.name.encode() + key[_NAME_BYTES:]).digest(len(content))
        return np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key[:_NAME_BYTES].hex()}.safetensors"


def batch_key(input_ids: Tensor, scored: Tensor, windows: bytes = b"") -> bytes:
    """48 bytes that differ between batches: tokens, scored positions and shape, all on the CPU.

    What follows a row's last scored token changes no score, but its place is part of the shape. The first 16 bytes name
    a file and so are known to anyone who sees it; the others seal it, and follow from nothing but the tokens.

    Args:
        input_ids: (B, T) int64.
        scored: (B, T) bool.
        windows: how the rows are read, where not all are read whole.
    """
    digest = hashlib.blake2b(str(tuple(input_ids.shape)).encode(), digest_size=48)
    digest.update(input_ids.numpy().tobytes())
    digest.update(scored.to(torch.uint8).numpy().tobytes())
    digest.update(windows)
    return digest.digest()


def _digest(key: bytes, sealed: bytes) -> str:
    return hashlib.sha256(key[_NAME_BYTES:] + sealed).hexdigest()
