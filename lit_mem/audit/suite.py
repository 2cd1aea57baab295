"""Named suites of measures, and their most commonly changed options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, get_args

from lit_mem.attacks.base import Attack
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.loop import clash, known_of
from lit_mem.audit.measure import Measure
from lit_mem.audit.measures import (
    Canaries,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    Movers,
    Perplexity,
    Persons,
    PrivacyAudit,
    PromptSpanExtraction,
    Slices,
    SlidingExtraction,
    SpanExtraction,
    Turns,
    UnpromptedLeaks,
)
from lit_mem.audit.measures.heldout_loss import HeldOutLoss
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.errors import ConfigError, options_of

Suite = Literal["none", "quick", "standard", "full"]
"""`quick` generates no text; `standard` does; `full` adds all slices and unprompted generation; `none` is empty."""

_SLICED: Final = ["ngram_rate", "exact_rate", "exact_memorization", "span_rate"]


def extraction_options(given: ExtractionOptions | Mapping[str, Any] | None) -> ExtractionOptions | None:
    """The given options, built from a mapping if necessary.

    Raises:
        ConfigError: an option name is unknown, or its value has the wrong type.
    """
    return options_of(ExtractionOptions, given, "extraction")


def suite(
    name: Suite,
    attacks: dict[str, Attack] | None = None,
    extraction: ExtractionOptions | None = None,
    others: Sequence[Measure] = (),
    compares: bool = True,
) -> list[Measure]:
    """The measures of a suite, without canary measures.

    Args:
        name: name of the suite.
        attacks: membership inference attacks, by name; None: the default ones.
        extraction: extraction options; None: nothing is generated, whatever the suite.
        others: further measures; each replaces those of the suite that would log the same names.
        compares: whether there is a reference model; without one, measures that need it are left out.

    Raises:
        ConfigError: there is no such suite.
    """
    if name not in get_args(Suite):
        raise ConfigError(f"suite is {name!r}; expected one of {', '.join(get_args(Suite))}")
    if name == "none":
        return list(others)
    if not compares:
        attacks = attacks or {name: one for name, one in default_attacks().items() if not one.needs.reference}
        extraction = extraction and replace(extraction, base=False)
    made: list[Measure] = [
        Perplexity(),
        MembershipInference(attacks),
        Extractability(),
        SlidingExtraction(base=compares),
        SpanExtraction(),
        Turns(compares),
        PromptSpanExtraction(compares),
    ]
    if name != "quick" and extraction is not None:
        made.append(Extraction(**vars(extraction)))
    if name == "full" and extraction is not None:
        made.append(UnpromptedLeaks(base=compares))
    made = _without_replaced(made, others)
    known = known_of([*made, *others])
    followed = sorted(known.columns, key=lambda column: (column != "mia/reference", column == "mia/combined", column))
    attack = next((column for column in followed if column.startswith("mia/")), None)
    made.append(Correlation())
    if attack is not None:
        made.append(Movers(attack))
    if name != "quick":
        made.append(Persons(attack))
    if name == "full":
        made.append(Slices())
    elif name == "standard":
        measures = [measure for measure in _SLICED if known.has(f"extraction/{measure}")]
        made.append(Slices(attacks=[] if attack is None else [attack.removeprefix("mia/")], measures=measures))
    return [*_without_replaced(made, others), *others]


def _without_replaced(made: Sequence[Measure], others: Sequence[Measure]) -> list[Measure]:
    return [one for one in made if not any(clash(one, other) for other in others)]


def of_canaries(measures: Sequence[Measure]) -> list[Measure]:
    """The canary measures not already in `measures`."""
    return _without_replaced([Canaries(), PrivacyAudit()], measures)


def with_loss(measures: Sequence[Measure]) -> list[Measure]:
    """The measures, plus the held-out loss if there is a perplexity and no trainer logs the loss."""
    has_perplexity = any(isinstance(one, Perplexity) for one in measures)
    return [*measures, *_without_replaced([HeldOutLoss()] if has_perplexity else [], measures)]
