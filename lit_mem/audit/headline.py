"""The main metrics, which keep a dashboard readable; the record has all of them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, Literal

Sent = Literal["main", "all"]
"""`main`: the metrics of `MAIN` and those that the user names; `all`: every metric."""

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
    *(f"mia/{attack}_tpr_at_fpr_*" for attack in ("reference", "combined")),
    *(f"extraction/{rate}_rate{of}" for rate in ("ngram", "exact", "span") for of in ("", "_heldout", "_base")),
    "user/inference_auroc",
    *(f"user/extracted_share{of}" for of in ("", "_heldout")),
    *(f"leak/verbatim_share{of}" for of in ("", "_heldout", "_base")),
    "canary/auroc",
    "canary/exposure_mean",
    "canary/extraction_rate",
    "audit/epsilon_lower_bound",
    "audit/epsilon_lower_bound_highest",
    "privacy/*",
)
"""Patterns of metric names, without interval ends. They match at most 44 metrics of the standard suite, with canaries
and private training; with `WITH_ENDS`, 60."""
WITH_ENDS: Final = (
    *(f"mia/{attack}_auroc" for attack in ("strongest", "reference", "combined")),
    "mia/reference_tpr_at_fpr_0.01",
    *(f"extraction/{rate}_rate" for rate in ("ngram", "exact", "span")),
    "user/inference_auroc",
)
"""Metrics whose interval ends are sent to loggers too."""
_END: Final = re.compile(r"_(low|high)$")


def is_main(name: str) -> bool:
    """Whether a metric is in `MAIN`, or an interval end of one in `WITH_ENDS`.

    >>> is_main("extraction/span_rate_high"), is_main("extraction/span_rate_heldout_high")
    (True, False)
    """
    if _END.search(name):
        return _END.sub("", name) in WITH_ENDS
    return any(fnmatchcase(name, pattern) for pattern in MAIN)
