"""Which plots the page of one run has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lit_mem.plots.curves import Line
from lit_mem.plots.style import HELDOUT, MEMBERS
from lit_mem.report.plots import Plot, curves, histogram, roc, scatter, trade_off

_SETS: Final = (
    ("", "members", False),
    ("_heldout", "held-out texts", False),
    ("_base", "base model, members", True),
    ("_base_heldout", "base model, held-out texts", True),
)
_MEASURES: Final = {
    "ngram_rate": "N-gram rate",
    "exact_rate": "Whole suffix extracted",
    "exact_memorization": "Exact memorization",
    "extraction_strength": "Extraction strength",
    "ngram_hits": "N-gram hits",
    "ngram_memorization": "N-gram memorization",
    "discoverable": "Discoverable extraction",
    "edit_similarity": "Edit similarity",
    "rouge_l": "ROUGE-L",
    "span_rate": "Sensitive spans extracted",
}


class Series:
    """The metrics of all validations, by name.

    Args:
        report: of a run.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self.rows: list[Mapping[str, Any]] = report["validations"]
        epochs = [row["epoch"] for row in self.rows]
        # Several validations of one epoch are placed at their steps.
        by_epoch = len(set(epochs)) == len(epochs)
        self.x: list[float] = epochs if by_epoch else [row["step"] + (row["epoch"] > 0) for row in self.rows]
        self.x_label = "epoch (0 = before training)" if by_epoch else "training step"
        self.names = {name for row in self.rows for name in row["metrics"]}

    def __getitem__(self, name: str) -> list[float | None]:
        return [row["metrics"].get(name) for row in self.rows]


def limits_on(report: Mapping[str, Any], metric: str) -> list[float]:
    """The run's limits on a metric."""
    names = (metric, f"{metric}_low", f"{metric}_high")
    return sorted({row["bound"] for row in report["verdict"]["limits"] if row["metric"] in names})


def run_plots(report: Mapping[str, Any]) -> dict[str, list[Plot]]:
    """The plots of a run's page by its part."""
    series = Series(report)
    return {
        "curves": list(_main_curves(report, series)),
        "more": list(_more_curves(series)),
        "examples": list(_example_plots(report["examples"] or {})),
        "more_examples": list(_more_example_plots(report["examples"] or {})),
    }


def _main_curves(report: Mapping[str, Any], series: Series) -> Iterator[Plot]:
    attack = report["attack"]
    found = [
        curves(
            "perplexity",
            "Perplexity",
            "Lower is better. Where the members' curve keeps falling and the other does not, the model memorizes and "
            "no longer learns.",
            [Line("members", series.x, series["memorization/perplexity_members"], colour=MEMBERS),
             Line("held-out texts", series.x, series["val/perplexity"], colour=HELDOUT)],
            series.x_label,
            "perplexity",
        ),
        _auroc_curves(report, series),
        _extraction_curve(series, "ngram_rate"),
    ]  # fmt: skip
    if attack is not None:
        metric = f"mia/{attack}_auroc"
        points = [
            (f"{x:g}", ppl, area)
            for x, ppl, area in zip(series.x, series["val/perplexity"], series[metric], strict=True)
        ]
        bounds = limits_on(report, metric)
        found.append(
            trade_off(
                "tradeoff",
                "Utility against memorization",
                "A point an epoch. Left is a better model, down is less memorization: utility gained moves a point "
                "left, memorization moves it up.",
                points,
                "held-out perplexity",
                f"AUROC of {attack}",
                limit=bounds[0] if bounds else None,
            )
        )
    yield from (plot for plot in found if plot is not None)


def _auroc_curves(report: Mapping[str, Any], series: Series) -> Plot | None:
    attack = report["attack"]
    names = sorted(match[1] for name in series.names if (match := re.fullmatch(r"mia/(.+)_auroc", name)))
    lines = []
    for name in sorted(names, key=lambda name: name != attack):
        metric = f"mia/{name}_auroc"
        lines.append(
            Line(name, series.x, series[metric], series[f"{metric}_low"], series[f"{metric}_high"])
            if f"{metric}_low" in series.names
            else Line(name, series.x, series[metric])
        )
    return curves(
        "auroc",
        "Membership inference, AUROC",
        "Chance that an attack ranks a member above an unseen text. The band is the 95 % interval. Each attack is one "
        "method: a high curve is evidence of a leak, a low one is not evidence of safety.",
        lines,
        series.x_label,
        "AUROC",
        limits=limits_on(report, f"mia/{attack}_auroc"),
        guess=0.5,
    )


def _of_sets(series: Series, metric: str) -> list[Line]:
    """A line for each set of texts and model that a metric is logged of; solid ones with their interval as a band."""
    lines = []
    for suffix, label, dashed in _SETS:
        if (name := f"{metric}{suffix}") in series.names:
            banded = not dashed and f"{name}_low" in series.names
            low, high = (series[f"{name}_{end}"] if banded else None for end in ("low", "high"))
            colour = HELDOUT if "heldout" in suffix else MEMBERS
            lines.append(Line(label, series.x, series[name], low, high, dashed, colour))
    return lines


def _leak_curve(series: Series) -> Plot | None:
    return curves(
        "leak-verbatim-share",
        "Verbatim text, unprompted",
        "Share of the words generated without a true prefix that are in runs of words found only in members; for "
        "held-out texts, only in held-out texts.",
        _of_sets(series, "leak/verbatim_share"),
        series.x_label,
        "share of words",
        from_zero=True,
    )


def _extraction_curve(series: Series, measure: str) -> Plot | None:
    title = _MEASURES.get(measure, measure)
    return curves(
        f"extraction-{re.sub(r'[^a-zA-Z0-9]+', '-', measure)}",
        f"Extraction: {title}",
        "Extraction from members above that from held-out texts and from the base model is memorization; what all "
        "share are phrases of the domain. The bands are 95 % intervals.",
        _of_sets(series, f"extraction/{measure}"),
        series.x_label,
        title,
        from_zero=True,
    )


def _more_curves(series: Series) -> Iterator[Plot]:
    for measure in _MEASURES:
        if measure != "ngram_rate" and f"extraction/{measure}" in series.names:
            plot = _extraction_curve(series, measure)
            if plot is not None:
                yield plot
    if "leak/verbatim_share" in series.names and (plot := _leak_curve(series)) is not None:
        yield plot


def _example_plots(examples: Mapping[str, Any]) -> Iterator[Plot]:
    if examples.get("attacks"):
        yield roc("roc", examples["attacks"])
        yield histogram("histogram-1", examples["attacks"][0])
    if examples.get("scatters"):
        yield _scatter("scatter-1", examples["scatters"][0])


def _more_example_plots(examples: Mapping[str, Any]) -> Iterator[Plot]:
    for i, one in enumerate(examples.get("attacks", [])[1:], start=2):
        yield histogram(f"histogram-{i}", one)
    for i, one in enumerate(examples.get("scatters", [])[1:], start=2):
        yield _scatter(f"scatter-{i}", one)


def _scatter(slug: str, one: Mapping[str, Any]) -> Plot:
    measure = one["measure"].removeprefix("extraction/")
    return scatter(slug, one, _MEASURES.get(measure, measure))
