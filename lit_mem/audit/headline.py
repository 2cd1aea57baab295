"""The main metrics, so that a dashboard opens on what matters; the record has them all."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final, Literal

Sent = Literal["main", "all"]
"""`main`: those of `MAIN`, and what the user names; `all`: every metric."""

MAIN: Final = (
    "train/loss",
    "val/loss",
    "test/loss",
    "val/perplexity",
    "val/perplexity_base",
    "test/perplexity",
    "test/perplexity_base",
    "memorization/perplexity_members",
    "memorization/perplexity_members_base",
    "memorization/perplexity_gap",
    "mia/*_auroc",
    "mia/loss_auroc_base",
    *(f"mia/{attack}_auroc_{end}" for attack in ("loss", "reference", "combined") for end in ("low", "high")),
    *(f"mia/{attack}_tpr_at_fpr_*" for attack in ("reference", "combined")),
    *(f"extraction/{rate}_rate{of}" for rate in ("ngram", "exact", "span") for of in ("", "_heldout", "_base")),
    *(f"user/inference_auroc{end}" for end in ("", "_low", "_high")),
    *(f"user/extracted_share{of}" for of in ("", "_heldout")),
    *(f"leak/verbatim_share{of}" for of in ("", "_heldout", "_base")),
    "canary/auroc",
    "canary/exposure_mean",
    "canary/extraction_rate",
    "audit/epsilon_lower_bound",
    "privacy/*",
)
"""Patterns of their names. Of the standard suite they match at most 46, with canaries and private training."""


def is_main(name: str) -> bool:
    """Whether a metric is one of `MAIN`."""
    return any(fnmatchcase(name, pattern) for pattern in MAIN)
