"""Random numbers that a secret key decides, and that nobody without it can foretell or repeat."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_BYTES: Final = 8
_BITS: Final = 53  # of a double's significand


class RandomStream:
    """Random numbers by purpose: the same purpose gives the same numbers, another one unrelated ones.

    They come from SHAKE-256 over key and purpose. There is no state that a checkpoint would have to keep, or could give
    away, and the key's 256 bits cannot be tried out, unlike the 32 bits of a seed that torch's generator on the CPU
    reads.

    Args:
        key: 32 bytes. Whoever knows them can compute every number.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"a key has 32 bytes, not {len(key)}")
        self.key = key

    @classmethod
    def fresh(cls) -> RandomStream:
        """With a key from the operating system's generator, which is used nowhere else."""
        return cls(os.urandom(32))

    @classmethod
    def reproducible(cls, seed: int) -> RandomStream:
        """With a key that follows from a seed: for tests, as anyone can try out seeds."""
        return cls(hashlib.sha256(f"lit_mem test seed {seed}".encode()).digest())

    def uniform(self, n: int, *purpose: Any) -> NDArray[np.float64]:
        """(n,) float64, evenly over [0, 1), in steps of 2^-53.

        Args:
            n: how many.
            purpose: plain values (texts, whole numbers) that no other use has.
        """
        content = hashlib.shake_256(self.key + repr(purpose).encode()).digest(_BYTES * n)
        words = np.frombuffer(content, dtype="<u8")
        return (words >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS

    def normal(self, n: int, *purpose: Any) -> NDArray[np.float64]:
        """(n,) float64 from the standard normal distribution (Box and Muller 1958), none beyond 8.6 deviations.

        Args:
            n: how many.
            purpose: plain values that no other use has.
        """
        half = -(-n // 2)
        radius, angle = self.uniform(2 * half, *purpose).reshape(2, half)
        radius = np.sqrt(-2 * np.log1p(-radius))
        angle = 2 * np.pi * angle
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:n]
