"""Reference scores on disk: the frozen model scores a batch once, not once per run."""

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

FORMAT: Final = 3
"""Version of the files, and of how texts are laid out for the model, which affects rounding; others are ignored."""

_NAME_BYTES: Final = 16
_LEFT_AFTER_SECONDS: Final = 3600.0
"""Age from which an unfinished file is left by a killed process; a file is written within moments."""


class ReferenceStore:
    """One small file per batch, in one folder per setting under which the scores are bit-identical.

    A file is named by a digest of its batch: tokens, scored positions and shape, as scores of the same text in another
    batch may differ by rounding. It holds log-probabilities and greedy hits, no text and no tokens. Since the base
    model could reconstruct a text from its log-probabilities, token by token, they are encrypted with a key derived
    from the texts. Files are written atomically (`files.atomic`), so concurrent runs at worst repeat work. A damaged
    file is computed again; if the folder is not writable, nothing is stored.

    Args:
        root: parent folder of all settings.
        settings: everything that the scores depend on apart from the batch, by name.
    """

    def __init__(self, root: Path, settings: Mapping[str, str]) -> None:
        given = json.dumps(dict(settings) | {"format": FORMAT}, sort_keys=True)
        self.folder = root / hashlib.sha256(given.encode()).hexdigest()[:16]
        self.loaded = 0
        self._usable = True
        self._cleared = False

    def load(self, key: bytes, shape: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        """Read a batch: (B, T) float32 log-probabilities in nats and (B, T) bool hits, on the CPU.

        Args:
            key: key of the batch.
            shape: (B, T), the expected shape.

        Returns:
            None if nothing is stored, or the file is damaged.
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
            log.warning("%s is damaged; its reference scores are computed again.", path)
            return None
        self.loaded += 1
        opened = torch.from_numpy(self._sealed(key, sealed))
        return opened[: 4 * n].view(torch.float32).view(shape), opened[4 * n :].view(torch.bool).view(shape)

    def save(self, key: bytes, logprob: Tensor, hit: Tensor) -> None:
        """Store a batch's scores; on failure, warn once and store nothing more."""
        if not self._usable:
            return
        path = self._path(key)
        sealed = self._sealed(key, logprob.float().numpy().tobytes() + hit.numpy().tobytes())
        try:
            for folder in (self.folder.parent, self.folder):
                modes.make_folder(folder)
                modes.restrict(folder)  # earlier versions made it readable by all
            self._clear()
            content = save({"sealed": torch.from_numpy(sealed)}, {"sha256": _digest(key, sealed.tobytes())})
            with whole(path, shared=True) as part:
                part.write_bytes(content)
        except OSError as error:
            self._usable = False
            log.warning("Reference scores are not stored for later runs: %s: %s.", self.folder, error.strerror)

    def _clear(self) -> None:
        """Remove, once, unfinished files of killed processes."""
        if self._cleared:
            return
        self._cleared = True
        for path in self.folder.glob(".*.part"):
            with suppress(OSError):  # another process may do the same
                if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                    path.unlink()

    def _sealed(self, key: bytes, content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """(n,) bytes encrypted or decrypted, which is the same operation."""
        # The key stream differs by setting: with the same one, two files would reveal the difference of their scores.
        stream = hashlib.shake_256(self.folder.name.encode() + key[_NAME_BYTES:]).digest(len(content))
        return np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)

    def _path(self, key: bytes) -> Path:
        return self.folder / f"{key[:_NAME_BYTES].hex()}.safetensors"


def batch_key(input_ids: Tensor, scored: Tensor, windows: bytes = b"") -> bytes:
    """48 bytes that identify a batch by its tokens, scored positions and shape, all on the CPU.

    Tokens after a row's last scored one change no score, but count for the shape. The first 16 bytes name the file and
    are public; the others encrypt it, and can be derived only from the tokens.

    Args:
        input_ids: (B, T) int64.
        scored: (B, T) bool.
        windows: the windows in which rows are read, if any.
    """
    digest = hashlib.blake2b(str(tuple(input_ids.shape)).encode(), digest_size=48)
    digest.update(input_ids.numpy().tobytes())
    digest.update(scored.to(torch.uint8).numpy().tobytes())
    digest.update(windows)
    return digest.digest()


def _digest(key: bytes, sealed: bytes) -> str:
    return hashlib.sha256(key[_NAME_BYTES:] + sealed).hexdigest()
