"""Which plots the page of a sweep has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lit_mem.audit.glossary import explained
from lit_mem.plots.curves import Line
from lit_mem.report.plots import Plot, curves, trade_off


def sweep_plots(report: Mapping[str, Any]) -> dict[str, list[Plot]]:
    """The plots of a sweep's page by its part."""
    return {"front": _front_plot(report), "curves": _curve_plots(report)}


def label_of(values: Mapping[str, Any]) -> str:
    """A configuration in a few words: "4, v,o"."""
    return ", ".join(map(str, values.values()))


def _front_plot(report: Mapping[str, Any]) -> list[Plot]:
    front = report["front"]
    if front is None:
        return []
    points = [(label_of(one["values"]), one["perplexity"], one["memorization"]) for one in front["points"]]
    best = [(one["perplexity"], one["memorization"]) for one in front["points"] if one["on_front"]]
    guidance = report["guidance"] or {}
    plot = trade_off(
        "front",
        "Utility against memorization",
        "A point a configuration, mean over its seeds at the last epoch. Left is a better model, down is less "
        f"memorization. Those on the line are beaten by no other in both ({len(best)}).",
        points,
        "held-out perplexity",
        explained(front["metric"])[0],
        limit=guidance.get("limit") if guidance.get("metric") == front["metric"] else None,
        joined=False,
        front=best,
    )
    return [] if plot is None else [plot]


def _curve_plots(report: Mapping[str, Any]) -> list[Plot]:
    plots = []
    for i, one in enumerate(report["curves"]):
        lines = [
            Line(
                f"{one['axis']} {line['value']}",
                line["epochs"],
                [point["mean"] for point in line["points"]],
                [point["low"] for point in line["points"]],
                [point["high"] for point in line["points"]],
            )
            for line in one["lines"]
        ]
        title, meaning = explained(one["metric"])
        plot = curves(
            f"curve-{i}",
            f"{title}, by {one['axis']}",
            f"Mean over all trials with that value: {meaning}." if meaning else "Mean over all trials with that value.",
            lines,
            "epoch (0 = before training)",
            re.sub(r", (held-out texts|members)$", "", title),
            guess=0.5 if one["metric"].endswith("_auroc") else None,
            from_zero=one["metric"].startswith("extraction/"),
        )
        plots += [] if plot is None else [plot]
    return plots
