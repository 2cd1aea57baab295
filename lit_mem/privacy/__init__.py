"""Differentially private training, and what is measured of it."""

from lit_mem.privacy.dpsgd import DPSGD

__all__ = ["DPSGD"]
