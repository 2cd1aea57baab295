"""Which attacks a run tried and which not, in words for a reader who did not run it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple


class Attack(NamedTuple):
    """An attack, or a class of them.

    Attributes:
        kind: its class in EDPB Opinion 28/2024, paragraph 55; "other": it has none.
        name: in a report.
        words: what the attacker does.
        why: the reason it was not tried; "" where it was.
    """

    kind: str
    name: str
    words: str
    why: str = ""


MEMBERSHIP: Final = {
    "loss": "takes likely texts for members",
    "reference": "takes texts that training has made likelier than in the base model for members",
    "zlib": "takes texts that are likelier for the model than for a compressor for members",
    "min_k": "looks at a text's least likely tokens alone",
    "min_k_plus_plus": "the same, against each token's alternatives",
    "ez_mia": "looks where the model still errs, and whether the true token became likelier there",
    "wbc": "counts the stretches of a text in which the model beats its base",
    "delta_t": "takes texts that training has made evenly likelier, token by token, for members",
    "delta_low": "looks at the tokens of a text that training helped least",
    "delta_standardized": "compares the gain of a text over the base model with that of texts of the model's own",
    "zlib_calibrated": "as zlib, less the same score of the base model",
    "min_k_calibrated": "as min_k, less the same score of the base model",
    "combined": "a weighted sum of these, fitted on known members, which an attacker seldom has",
    "lowercase": "compares a text with itself in lower case",
    "recall": "puts unseen texts in front",
    "con_recall": "puts unseen texts and members in front",
    "neighbourhood": "compares a text with others that differ in a few words",
    "gradient_norm": "looks at how far a training step on a text would move the weights",
    "lira": "compares with reference models that were trained without the text",
    "rmia": "compares with other texts, against reference models",
}
"""Attacks of membership inference by the name that they are logged with, and what each does."""

_EXTRACTION: Final = (
    ("extraction", r"extraction/(ngram_rate|exact_rate|rouge_l|edit_similarity|bleu|substring)",
     "prompts with the beginning of a training text, and compares what the model writes with the suffix"),
    ("extraction by sampling", r"extraction/(discoverable|probability).*",
     "how likely sampling from the model gives the suffix of a training text within some tries"),
    ("extraction token by token",
     r"extraction/(exact_memorization|extraction_strength|largest_p_z|longest_run|ngram_(hits|memorization))",
     "given the true text so far, which next tokens greedy decoding writes; in long texts at every position"),
    ("extraction of marked pieces", r"extraction/span_rate",
     "whether marked names, dates and the like are written, given the text before them"),
    ("extraction of marked pieces of prompts", r"extraction/prompt_span_rate",
     "the same for pieces of prompts, which are not trained on"),
    ("writing unprompted", r"leak/verbatim_share",
     "lets the model write without the beginning of a text, and looks for training texts in what it writes"),
)  # fmt: skip
_OTHERS: Final = (
    ("membership inference", "user inference", r"user/inference_auroc",
     "decides from all texts of a person whether they are in the training set"),
    ("membership inference", "membership of single turns", r"turn/.+_auroc",
     "the same for single turns of a conversation"),
    ("other", "canaries", r"canary/auroc",
     "made-up secrets were inserted into the training set by fair coins, and searched for"),
    ("other", "audit of epsilon from below", r"audit/epsilon_lower_bound",
     "a lower bound on the epsilon of training, by canaries"),
)  # fmt: skip
NEVER: Final = (
    Attack("attribute inference", "attribute inference",
           "infers something of a person from what else is known of that person", "lit_mem has no such attack"),
    Attack("exfiltration", "exfiltration",
           "takes weights or data from the systems that hold them", "it concerns those systems, not the model"),
    Attack("regurgitation", "other prompts",
           "instructions, jailbreaks, made-up or many-turn prompts in place of a text's own beginning",
           "lit_mem prompts with beginnings of training texts alone"),
    Attack("model inversion", "model inversion",
           "works back from outputs or weights to typical inputs", "lit_mem has no such attack"),
    Attack("reconstruction", "reconstruction",
           "rebuilds training texts whose beginning is not known, from weights, gradients or many answers",
           "lit_mem goes no further than the extraction above"),
    Attack("other", "adaptive attacks by fine-tuning",
           "trains the model further so that it gives more away", "lit_mem has no such attack"),
)  # fmt: skip
"""Attacks that no run tries."""


def tried(names: Collection[str]) -> list[Attack]:
    """The attacks that a run has metrics of.

    Args:
        names: of all metrics that it logged.

    >>> [one.name for one in tried({"mia/loss_auroc", "mia/mine_auroc", "extraction/exact_rate"})]
    ['loss', 'mine', 'extraction']
    """
    logged = {match[1] for name in names if (match := re.fullmatch(r"mia/(.+)_auroc", name))}
    logged = {name.removesuffix("_base") for name in logged} - {"strongest"}  # which is one of the others
    order = [name for name in MEMBERSHIP if name in logged] + sorted(logged - MEMBERSHIP.keys())
    found = [
        Attack("membership inference", name, MEMBERSHIP.get(name, "an attack of the user's own")) for name in order
    ]
    found += [Attack("regurgitation", name, words) for name, pattern, words in _EXTRACTION if _any(pattern, names)]
    return found + [Attack(kind, name, words) for kind, name, pattern, words in _OTHERS if _any(pattern, names)]


def not_tried(names: Collection[str], absent: Mapping[str, str] | None = None) -> list[Attack]:
    """The attacks that a run has no metrics of: those of this package first, then `NEVER`.

    Args:
        names: of all metrics that the run logged.
        absent: metrics that could not be measured in it, with what they lack.
    """
    done, lacks = {one.name for one in tried(names)}, absent or {}
    off = "it was off"
    found = [
        Attack("membership inference", name, words, lacks.get(f"mia/{name}_auroc", off))
        for name, words in MEMBERSHIP.items()
        if name not in done
    ]
    for name, pattern, words in _EXTRACTION:
        if name not in done:
            found.append(Attack("regurgitation", name, words, _why(pattern, lacks, off)))
    for kind, name, pattern, words in _OTHERS:
        if name not in done:
            found.append(Attack(kind, name, words, _why(pattern, lacks, off)))
    return [*found, *NEVER]


def as_rows(attacks: Collection[Attack]) -> list[dict[str, Any]]:
    """As plain values."""
    return [one._asdict() for one in attacks]


def _any(pattern: str, names: Collection[str]) -> bool:
    return any(re.fullmatch(pattern, name) for name in names)


def _why(pattern: str, lacks: Mapping[str, str], otherwise: str) -> str:
    return next((why for name, why in lacks.items() if re.fullmatch(pattern, name)), otherwise)
