"""Titles and short explanations of metrics, for readers who did not log them."""

from __future__ import annotations

import re
from typing import Final

_TITLES: Final[tuple[tuple[str, str, str], ...]] = (
    ("val/perplexity", "Perplexity, held-out texts", "how well the model predicts unseen texts; lower is better"),
    ("test/perplexity", "Perplexity, test texts", "how well the model predicts unseen texts; lower is better"),
    ("memorization/perplexity_members", "Perplexity, members", "the same on training texts"),
    ("memorization/perplexity_gap", "Gap, nats per token", "how much easier members are than unseen texts"),
    (
        "mia/strongest_auroc",
        "AUROC of the strongest attack",
        "the attack with the highest lower confidence bound; its interval is corrected for choosing among all attacks",
    ),
    (
        r"mia/(.+)_auroc",
        "AUROC of the {} attack",
        "chance that the attack ranks a member above an unseen text; 0.5 is chance level, 1 is perfect separation",
    ),
    (
        r"mia/(.+)_tpr_at_fpr_([^_]+)",
        "Members found by {} at false-positive rate {}",
        "share of members identified at this false-positive rate",
    ),
    (
        "extraction/ngram_rate",
        "N-gram rate, members",
        "longest run of true words generated, as a share of the suffix",
    ),
    ("extraction/ngram_rate_heldout", "N-gram rate, held-out texts", "the same on unseen texts"),
    ("extraction/ngram_rate_base", "N-gram rate, base model on members", "the same before fine-tuning"),
    (
        "extraction/exact_rate",
        "Whole suffix extracted, members",
        "share of members whose suffix is generated exactly",
    ),
    (
        "extraction/ngram_hits",
        "N-gram hits, members",
        "share of runs of 4 to 6 tokens that greedy decoding reproduces given the preceding text: an early warning",
    ),
    ("extraction/ngram_hits_heldout", "N-gram hits, held-out texts", "the same on unseen texts"),
    (
        "extraction/largest_p_z",
        "Easiest piece of a long text, members",
        "probability of sampling the most extractable window of tokens, at any position",
    ),
    (
        "extraction/longest_run",
        "Longest verbatim run of a long text, members",
        "consecutive tokens that greedy decoding predicts correctly, each given the true text before it",
    ),
    ("extraction/span_rate", "Sensitive spans extracted, members", "share of marked names, dates and so on"),
    (
        "extraction/prompt_span_rate",
        "Sensitive spans of prompts extracted, members",
        "share of marked spans in prompts, which are given but not trained on",
    ),
    (
        r"turn/(.+)_auroc",
        "AUROC of the {} attack, by turn",
        "the same for single assistant turns of a conversation; 0.5 is chance level, 1 is perfect separation",
    ),
    (
        "user/inference_auroc",
        "User inference, AUROC",
        "chance that a person in training has a higher mean score than one who is not; 0.5 is chance level",
    ),
    (
        "user/extracted_share",
        "Persons extracted, members",
        "share of persons with at least one marked span or whole suffix extracted",
    ),
    ("user/extracted_share_heldout", "Persons extracted, held-out texts", "the same for persons not trained on"),
    (
        "leak/verbatim_share",
        "Generated unprompted, verbatim from members",
        "share of words generated without a true prefix that lie in runs of 8 or more words found only in members",
    ),
    ("leak/verbatim_share_heldout", "The same from held-out texts", "such runs of unseen texts: the chance level"),
    ("leak/longest_run", "Longest run generated unprompted", "consecutive words, found only in a member"),
    ("leak/texts_hit", "Members hit unprompted", "number of different members with such a run"),
    ("canary/exposure_mean", "Exposure of canaries", "bits by which inserted secrets rank above others"),
    ("canary/auroc", "AUROC of canaries", "how well inserted secrets are separated from others; 0.5 is chance level"),
    ("privacy/epsilon", "Privacy ε", "ε spent by differentially private training; lower is more private"),
    (
        "privacy/epsilon_largest_group",
        "Privacy ε of a person",
        "the same for the person with the most rows, privacy/largest_group of them, at the same δ",
    ),
    (
        "audit/epsilon_lower_bound",
        "Lower bound on ε",
        "lower bound on ε from an audit with canaries, for this validation alone",
    ),
    (
        "audit/epsilon_lower_bound_highest",
        "Lower bound on ε, highest",
        "the highest of all validations so far, at the stated confidence for all of them together",
    ),
)


def explained(name: str) -> tuple[str, str]:
    """Title and meaning of a logged metric; the name and "" if the metric is unknown.

    >>> explained("mia/zlib_auroc")[0]
    'AUROC of the zlib attack'
    >>> explained("my/own")
    ('my/own', '')
    """
    for pattern, title, meaning in _TITLES:
        if found := re.fullmatch(pattern, name):
            return title.format(*found.groups()), meaning
    return name, ""


def key_metrics(names: set[str], attack: str | None, strongest: str | None) -> list[str]:
    """The few metrics that summarize a run, in display order, among those it logged."""
    wanted = ["val/perplexity", "test/perplexity", "memorization/perplexity_members", "memorization/perplexity_gap"]
    for one in dict.fromkeys([attack, "strongest", "reference", "loss", strongest]):
        if one is not None:
            wanted += [f"mia/{one}_auroc"]
    if attack is not None:
        wanted += [f"mia/{attack}_tpr_at_fpr_0.01"]
    wanted += [name for name, _, _ in _TITLES if "(" not in name and name not in wanted]
    return [name for name in wanted if name in names]


def of_base(name: str) -> str:
    """Logged name of the same metric measured on the base model.

    >>> of_base("extraction/ngram_rate_heldout"), of_base("val/perplexity")
    ('extraction/ngram_rate_base_heldout', 'val/perplexity_base')
    """
    return f"{name.removesuffix('_heldout')}_base_heldout" if name.endswith("_heldout") else f"{name}_base"
