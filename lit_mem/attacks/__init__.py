"""Membership inference attacks: token scores in, one number an example out; higher means member."""

from lit_mem.attacks.base import Attack
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.reference import ReferenceRatio

__all__ = ["Attack", "Loss", "MinK", "ReferenceRatio"]
