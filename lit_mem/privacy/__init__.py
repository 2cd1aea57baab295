"""Differentially private training and its accounting."""

from lit_mem.privacy.dpsgd import DPSGD

__all__ = ["DPSGD"]
