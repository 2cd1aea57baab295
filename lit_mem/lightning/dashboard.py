"""TensorBoard's Custom Scalars page: charts of the main metrics, with limits as lines."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from lit_mem.audit.thresholds import Threshold
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.headline import to_loggers
from lit_mem.lightning.limited import rules_in
from lit_mem.lightning.of_trainer import step_of
from lit_mem.lightning.rules import known_in

Layout = dict[str, dict[str, list[Any]]]
"""Category -> chart -> kind and tags, in the format of `SummaryWriter.add_custom_scalars`."""

_LINES: Final[dict[str, dict[str, list[str]]]] = {
    "Perplexity": {
        "perplexity of members and held-out texts": ["memorization/perplexity_members", "val/perplexity"],
    },
    "Membership inference": {},
    "Extraction": {
        f"{title} of members, held-out texts and base model": [
            f"extraction/{rate}_rate", f"extraction/{rate}_rate_heldout", f"extraction/{rate}_rate_base"
        ]
        for rate, title in (("ngram", "n-gram match rate"), ("exact", "exact rate"), ("span", "span rate"))
    },
    "Privacy": {
        "epsilon spent, and the measured lower bound": ["privacy/epsilon", "audit/epsilon_lower_bound"],
        "canaries": ["canary/auroc", "canary/extraction_rate"],
    },
}  # fmt: skip

_AREAS: Final = ("mia/combined_auroc", "mia/reference_auroc", "mia/strongest_auroc")
"""In reverse: TensorBoard 2.21 shows charts with margins in the reverse order."""


def layout(names: Collection[str], limits: Sequence[Threshold] = (), prefix: str = "") -> Layout:
    """The charts of a run.

    Args:
        names: metrics sent to the logger; charts without any are left out.
        limits: thresholds, each a line beside its metric.
        prefix: prefix that the logger adds to each name.
    """
    every = set(names)
    made: Layout = {title: {} for title in (*_LINES, "Limits")}
    for title, charts in _LINES.items():
        for chart, tags in charts.items():
            made[title][chart] = _lines((tag for tag in tags if tag in every), prefix)
    for name in dict.fromkeys([*_AREAS, *(one.name for one in limits)]):
        if every.issuperset(ends := _with_ends(name)):
            made["Membership inference"][f"{name}, 95 % interval"] = ["Margin", [prefix + tag for tag in ends]]
    tags_of = limit_tags(limits)
    for name in {one.name: None for one in limits if one.name in every}:
        shown = [tag for tag in _with_ends(name) if tag in every]
        shown += [tag for tag, one in tags_of.items() if one.name == name]
        made["Limits"][f"{name} and its limit"] = _lines(shown, prefix)
    kept = {title: {name: chart for name, chart in charts.items() if chart[1]} for title, charts in made.items()}
    return {title: charts for title, charts in kept.items() if charts}


def limit_tags(limits: Iterable[Threshold]) -> dict[str, Threshold]:
    """Tags of the thresholds' lines: `threshold/<metric>`; for a second one on a metric, `threshold/<metric>_2`."""
    tags: dict[str, Threshold] = {}
    for one in dict.fromkeys(limits):
        number = 1 + sum(other.name == one.name for other in tags.values())
        tags[f"threshold/{one.name}" if number == 1 else f"threshold/{one.name}_{number}"] = one
    return tags


def write_layout(trainer: pl.Trainer) -> None:
    """Write the layout to each of the trainer's TensorBoard loggers, on rank zero."""
    for logger in _boards(trainer):
        prefix = f"{logger._prefix}{logger.LOGGER_JOIN_CHAR}" if logger._prefix else ""
        logger.experiment.add_custom_scalars(layout(_names(trainer), _limits(trainer), prefix))


def write_limits(trainer: pl.Trainer) -> None:
    """Write a point of each threshold's line, at the step of the last validation, on rank zero."""
    lines = {tag: one.limit for tag, one in limit_tags(_limits(trainer)).items()}
    for logger in _boards(trainer) if lines else ():
        logger.log_metrics(lines, step=step_of(trainer))


def _with_ends(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _lines(tags: Iterable[str], prefix: str) -> list[Any]:
    # TensorBoard matches each as a regular expression at the start of a tag.
    return ["Multiline", [f"{re.escape(prefix + tag)}$" for tag in tags]]


def _limits(trainer: pl.Trainer) -> list[Threshold]:
    return [threshold for rule in rules_in(trainer) for threshold in rule.limits]


def _names(trainer: pl.Trainer) -> set[str]:
    """Metrics sent to loggers: those of the pass before training, if any; else all that may be logged."""
    audit, known = audit_of(trainer).audit, known_in(trainer)
    names = dict.fromkeys(known.metrics, 0.0)
    if audit is not None and audit.result is not None and audit.result.run.complete:
        of_measures = {name for measure in audit.measures for name in measure.names()}
        names = {name: 0.0 for name in known.metrics - of_measures} | dict(audit.result.metrics)
    return set(to_loggers(trainer, names))


def _boards(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [one for one in trainer.loggers if isinstance(one, TensorBoardLogger) and trainer.is_global_zero]
