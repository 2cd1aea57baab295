"""A digest of a whole training set, to detect that several private runs share one budget.

Differential privacy assumes an adversary who may know every text except one. An unkeyed digest, or one with a public
salt, would let them confirm a guess of that text. So the digest is keyed by a secret of the user that stays on the
machine (`$LIT_MEM_CACHE/privacy.key`): without the key a digest only shows whether two training sets are the same.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from lit_mem.files import modes
from lit_mem.files.places import cache_folder

KEY: Final = "privacy.key"
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16


def corpus_digest(texts: Iterable[str]) -> str:
    """`<digest of the key>:<keyed digest of all texts>`, independent of order; repeated texts count repeatedly.

    Raises:
        OSError: the key can be neither read nor created.
    """
    key = _key(cache_folder(KEY))
    found = hmac.new(key, digestmod=hashlib.sha256)
    for each in sorted(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts):
        found.update(each)
    return f"{_name(key)}:{found.hexdigest()[:32]}"


class Salted(NamedTuple):
    """Salt and key of the digests of a run's sets.

    Attributes:
        salt: 32 hexadecimal digits, drawn for each run.
        key: identifies the key, by 8 hexadecimal digits of its digest.
    """

    salt: str
    key: str


def new_salt() -> Salted:
    """A salt for the digests of a run.

    Raises:
        OSError: the key can be neither read nor created.
    """
    return Salted(secrets.token_hex(_SALT_BYTES), _name(_key(cache_folder(KEY))))


def salted_digest(texts: Iterable[str], salt: str) -> str:
    """HMAC-SHA256 of a salt and all texts, independent of order, with the user's key; for a published document.

    Without the key it is impossible to confirm a text or to compare two runs, not even whether a text was removed in
    between. With the key, the texts and the salt it can be recomputed.

    Args:
        texts: texts of a set.
        salt: salt of the run.

    Raises:
        OSError: the key can be neither read nor created.
    """
    found = hmac.new(_key(cache_folder(KEY)), f"set of texts {salt}".encode(), hashlib.sha256)
    for each in sorted(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts):
        found.update(each)
    return found.hexdigest()


def same_corpus(one: str, other: str) -> bool | None:
    """Whether two digests are of the same texts; None if unknown, since one is missing or has another key."""
    if not one or not other or one.partition(":")[0] != other.partition(":")[0]:
        return None
    return one == other


def _name(key: bytes) -> str:
    return hashlib.sha256(b"name of the key" + key).hexdigest()[:8]


def _key(path: Path) -> bytes:
    """The user's key, created if needed; concurrent processes get the same one."""
    if not path.exists():
        modes.make_folder(path.parent)
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process created it first
                os.link(part, path)
        finally:
            part.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise OSError(
            None, f"found {len(key)} bytes, expected {_KEY_BYTES}: remove the file to create a new key", str(path)
        )
    return key
