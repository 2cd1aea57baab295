"""Titles and meanings of metrics, for readers who did not log them."""

from __future__ import annotations

import re
from typing import Final

_TITLES: Final[tuple[tuple[str, str, str], ...]] = (
    ("val/perplexity", "Perplexity, held-out texts", "how well the model predicts texts it never saw; lower is better"),
    ("test/perplexity", "Perplexity, test texts", "how well the model predicts texts it never saw; lower is better"),
    ("memorization/perplexity_members", "Perplexity, members", "the same on the texts it was trained on"),
    ("memorization/perplexity_gap", "Gap, nats a token", "by how much members are easier than unseen texts"),
    (
        "mia/strongest_auroc",
        "AUROC of the strongest attack",
        "that of the attack that is surest to be strong; its interval is corrected for choosing among all attacks",
    ),
    (
        r"mia/(.+)_auroc",
        "AUROC of the {} attack",
        "chance that the attack ranks a member above an unseen text; 0.5 is guessing, 1 is certain",
    ),
    (
        r"mia/(.+)_tpr_at_fpr_([^_]+)",
        "Members found by {} at false-positive rate {}",
        "share of members that an attacker is sure of",
    ),
    (
        "extraction/ngram_rate",
        "N-gram rate, members",
        "longest run of the true words written, as a share of the suffix",
    ),
    ("extraction/ngram_rate_heldout", "N-gram rate, held-out texts", "the same on texts it never saw"),
    ("extraction/ngram_rate_base", "N-gram rate, base model on members", "the same before tuning"),
    (
        "extraction/exact_rate",
        "Whole suffix extracted, members",
        "share of members whose suffix is written exactly",
    ),
    (
        "extraction/ngram_hits",
        "N-gram hits, members",
        "share of runs of 4 to 6 tokens that greedy decoding writes, given the text before: an early warning",
    ),
    ("extraction/ngram_hits_heldout", "N-gram hits, held-out texts", "the same on texts it never saw"),
    (
        "extraction/largest_p_z",
        "Easiest piece of a long text, members",
        "probability of drawing the tokens that are easiest to extract, wherever they stand",
    ),
    (
        "extraction/longest_run",
        "Longest verbatim run of a long text, members",
        "tokens in a row that greedy decoding gets right, given the true text before each",
    ),
    ("extraction/span_rate", "Sensitive spans extracted, members", "share of marked names, dates and the like"),
    (
        "extraction/prompt_span_rate",
        "Sensitive spans of prompts extracted, members",
        "share of marked pieces of what is given and not trained on",
    ),
    (
        r"turn/(.+)_auroc",
        "AUROC of the {} attack, by turn",
        "the same for single turns of the assistant's in a conversation; 0.5 is guessing, 1 is certain",
    ),
    (
        "user/inference_auroc",
        "User inference, AUROC",
        "chance that a person's rows have a higher mean score if they were trained on; 0.5 is guessing, 1 is certain",
    ),
    (
        "user/extracted_share",
        "Persons extracted, members",
        "share of persons with at least one marked span or whole suffix written",
    ),
    ("user/extracted_share_heldout", "Persons extracted, held-out texts", "the same of persons it never saw"),
    (
        "leak/verbatim_share",
        "Written unprompted, word for word as in members",
        "share of the words written with no true prefix that lie in runs of 8 or more words of members alone",
    ),
    ("leak/verbatim_share_heldout", "The same as in held-out texts", "such runs of texts it never saw: chance"),
    ("leak/longest_run", "Longest run written unprompted", "words in a row, as in a member alone"),
    ("leak/texts_hit", "Members hit unprompted", "how many different members have such a run"),
    ("canary/exposure_mean", "Exposure of canaries", "bits by which inserted secrets stand out"),
    ("canary/auroc", "AUROC of canaries", "how well inserted secrets are separated from others; 0.5 is guessing"),
    ("privacy/epsilon", "Privacy ε", "what differentially private training has spent; lower is more private"),
    (
        "privacy/epsilon_largest_group",
        "Privacy ε of a person",
        "the same for the person with the most rows, privacy/largest_group of them, at the same δ",
    ),
    (
        "audit/epsilon_lower_bound",
        "ε audited from below",
        "lower bound on ε from an audit with canaries, of this validation by itself",
    ),
    (
        "audit/epsilon_lower_bound_highest",
        "ε audited from below, highest",
        "the highest of all validations so far, at the stated confidence for all of them together",
    ),
)


def explained(name: str) -> tuple[str, str]:
    """Title and meaning of a logged metric; the name itself and "" where neither is known.

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
    """The few metrics that sum up a run, in the order shown, of those that it logged."""
    wanted = ["val/perplexity", "test/perplexity", "memorization/perplexity_members", "memorization/perplexity_gap"]
    for one in dict.fromkeys([attack, "strongest", "reference", "loss", strongest]):
        if one is not None:
            wanted += [f"mia/{one}_auroc"]
    if attack is not None:
        wanted += [f"mia/{attack}_tpr_at_fpr_0.01"]
    wanted += [name for name, _, _ in _TITLES if "(" not in name and name not in wanted]
    return [name for name in wanted if name in names]


def of_base(name: str) -> str:
    """What the metric is called of the base model.

    >>> of_base("extraction/ngram_rate_heldout"), of_base("val/perplexity")
    ('extraction/ngram_rate_base_heldout', 'val/perplexity_base')
    """
    return f"{name.removesuffix('_heldout')}_base_heldout" if name.endswith("_heldout") else f"{name}_base"
