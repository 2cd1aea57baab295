"""Random numbers derived from a secret key, which cannot be predicted or reproduced without it."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_BYTES: Final = 8
_BITS: Final = 53  # of a double's significand


class RandomStream:
    """Random numbers by purpose: the same purpose gives the same numbers, different purposes independent ones.

    They come from SHAKE-256 over key and purpose. There is no state that a checkpoint would have to keep, or could
    leak, and the 256-bit key cannot be found by brute force, unlike the 32 bits of a seed that torch's CPU generator
    uses.

    Args:
        key: 32 bytes. Anyone who knows it can compute every number.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"the key has {len(key)} bytes; expected 32")
        self.key = key

    @classmethod
    def fresh(cls) -> RandomStream:
        """A stream with a fresh key from the operating system's generator."""
        return cls(os.urandom(32))

    @classmethod
    def reproducible(cls, seed: int) -> RandomStream:
        """A stream with a key derived from a seed: for tests only, since seeds can be guessed."""
        return cls(hashlib.sha256(f"lit_mem test seed {seed}".encode()).digest())

    def uniform(self, n: int, *purpose: Any) -> NDArray[np.float64]:
        """(n,) float64, uniform over [0, 1), in steps of 2^-53.

        Args:
            n: number of values.
            purpose: plain values (strings, integers) that are unique to this use.
        """
        content = hashlib.shake_256(self.key + repr(purpose).encode()).digest(_BYTES * n)
        words = np.frombuffer(content, dtype="<u8")
        return (words >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS

    def normal(self, n: int, *purpose: Any) -> NDArray[np.float64]:
        """(n,) float64 from the standard normal distribution (Box and Muller 1958), none beyond 8.6 sigma.

        Args:
            n: number of values.
            purpose: plain values that are unique to this use.
        """
        half = -(-n // 2)
        radius, angle = self.uniform(2 * half, *purpose).reshape(2, half)
        radius = np.sqrt(-2 * np.log1p(-radius))
        angle = 2 * np.pi * angle
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
