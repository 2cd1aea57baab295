"""Download a file once and verify it; safe with concurrent processes."""

from __future__ import annotations

import hashlib
import logging
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.error import HTTPError

from lit_mem.errors import DataError
from lit_mem.files import modes
from lit_mem.files.atomic import whole

log = logging.getLogger(__name__)

TIMEOUT_SECONDS: Final = 30.0
_CHUNK_BYTES: Final = 1 << 20


def fetch(url: str, target: Path, sha256: str, otherwise: str) -> None:
    """Download `url` to `target`, unless an intact copy is there already.

    Written atomically (`files.atomic`), with the permissions of `files.modes`.

    Args:
        url: to download.
        target: path to write; its folder is created.
        sha256: expected hexadecimal digest.
        otherwise: what the user can do without a network, for the message.

    Raises:
        DataError: the network is unreachable, the content has another digest, or the folder is not readable or not
            writable.
    """
    try:
        if target.is_file():
            for path in (target.parent, target):  # earlier versions made them world-readable
                modes.restrict(path)
            if hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
                return
            log.warning("%s is damaged; downloading it again.", target)
    except OSError as error:
        raise DataError(f"{target}: cannot be read ({error.strerror}); {otherwise}") from error
    log.info("Downloading %s to %s.", url, target.parent)
    try:
        modes.make_folder(target.parent)
        modes.restrict(target.parent)
        with whole(target, shared=True) as part:
            with part.open("wb") as file:
                found = _stream(url, file.write, otherwise)
            if found != sha256:
                raise DataError(f"{url}: found sha256 {found}, expected {sha256}; {otherwise}")
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); {otherwise}") from error


def _stream(url: str, write: Callable[[bytes], object], otherwise: str) -> str:
    """Download in chunks; returns the sha256."""
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            total = response.headers.get("Content-Length", "unknown")
            while chunk := response.read(_CHUNK_BYTES):
                digest.update(chunk)
                write(chunk)
                done += len(chunk)
                log.info("%s: %d of %s bytes.", url.rsplit("/", 1)[-1], done, total)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: cannot be downloaded ({reason}); {otherwise}") from error
    return digest.hexdigest()
