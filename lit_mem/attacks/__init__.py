"""Membership inference attacks: token scores in, one number an example out; higher means member."""

from lit_mem.attacks.base import Attack
from lit_mem.attacks.con_recall import ConReCaLL
from lit_mem.attacks.delta_low import DeltaLow
from lit_mem.attacks.delta_standardized import DeltaStandardized
from lit_mem.attacks.delta_t import DeltaT
from lit_mem.attacks.ez_mia import EzMia
from lit_mem.attacks.gradient_norm import GradientNorm
from lit_mem.attacks.lira import OfflineLiRA
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.lowercase import Lowercase
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.min_k_plus_plus import MinKPlusPlus
from lit_mem.attacks.neighbourhood import Neighbourhood
from lit_mem.attacks.recall import ReCaLL
from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.attacks.rmia import OfflineRMIA
from lit_mem.attacks.wbc import WindowComparison
from lit_mem.attacks.zlib import Zlib

__all__ = [
    "Attack",
    "ConReCaLL",
    "DeltaLow",
    "DeltaStandardized",
    "DeltaT",
    "EzMia",
    "GradientNorm",
    "Loss",
    "Lowercase",
    "MinK",
    "MinKPlusPlus",
    "Neighbourhood",
    "OfflineLiRA",
    "OfflineRMIA",
    "ReCaLL",
    "ReferenceRatio",
    "WindowComparison",
    "Zlib",
]
