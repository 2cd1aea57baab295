"""Where a model is released, and which metrics matter for that (EDPB Opinion 28/2024, paragraph 46)."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple, get_args

from lit_mem.errors import ConfigError

Release = Literal["weights", "api", "internal"]
"""weights: anyone has them; api: others may query the model; internal: people of one organisation may."""


class Context(NamedTuple):
    """What a release means.

    Attributes:
        attacker: who may attack, and with what.
        first: the metrics that matter most, as patterns of their logged names, the most important first.
        also: what no metric shows.
    """

    attacker: str
    first: tuple[str, ...]
    also: str


CONTEXTS: Final[dict[str, Context]] = {
    "weights": Context(
        "The weights are given away. Anyone can score a guessed text, compare with the base model, compute gradients, "
        "train further, and try without limit; a release cannot be revoked.",
        (
            *("mia/*_tpr_at_fpr_*", "mia/*_auroc", "user/inference_auroc", "extraction/discoverable"),
            *("extraction/exact_rate", "extraction/span_rate", "user/extracted_share", "canary/auroc"),
        ),
        "Attacks that change the model, such as further training, were not tried.",
    ),
    "api": Context(
        "Others may query the model and see what it writes, and probabilities of tokens where the service gives them. "
        "They do not have the weights; the service can limit and monitor their queries.",
        (
            *("extraction/exact_rate", "extraction/span_rate", "extraction/discoverable", "user/extracted_share"),
            *("extraction/ngram_rate", "canary/extraction_rate", "mia/loss_auroc", "mia/*_tpr_at_fpr_*"),
        ),
        "Membership inference as measured here reads the probability of each token: a service that returns only "
        "text reveals less. Filters and limits of the service were not tested.",
    ),
    "internal": Context(
        "People of one organisation may query the model. They are few and identified; but they may know the persons in "
        "the data, and parts of their texts, so their guesses are better than a stranger's.",
        (
            *("user/extracted_share", "user/inference_auroc", "extraction/span_rate", "extraction/exact_rate"),
            *("mia/*_auroc", "slice/*_auroc"),
        ),
        "Who has access, and whether the weights stay inside, was not tested.",
    ),
}
"""By the value of `--release`."""
UNSTATED: Final = (
    "The release was not stated (lit-mem report --release weights, api or internal). Until it is, read the metrics as "
    "for weights that are given away, the strictest case."
)


def release_of(given: str | None) -> str | None:
    """The value of `--release`.

    Raises:
        ConfigError: the value is unknown.
    """
    if given is not None and given not in CONTEXTS:
        raise ConfigError(f"--release is {given!r:.40}; expected one of {', '.join(get_args(Release))}")
    return given


def matter_most(release: str | None, names: Collection[str]) -> tuple[list[str], list[str]]:
    """The metrics that matter most for a release: those that were measured, and patterns of those that were not.

    Args:
        release: of the model; None: not stated, taken as "weights".
        names: of the metrics that were measured.
    """
    measured, lacking = list[str](), list[str]()
    for pattern in CONTEXTS[release or "weights"].first:
        found = sorted(name for name in names if fnmatchcase(name, pattern) and not name.endswith("_base"))
        measured += [name for name in found if name not in measured]
        lacking += [] if found else [pattern]
    return measured, lacking


def threat_model(release: str | None, names: Collection[str]) -> dict[str, Any]:
    """The part of a report on the release, as plain values."""
    measured, lacking = matter_most(release, names)
    one = CONTEXTS[release or "weights"]
    attacker = one.attacker if release else f"{UNSTATED} {one.attacker}"
    return {"release": release, "attacker": attacker, "measured": measured, "not_measured": lacking, "also": one.also}
