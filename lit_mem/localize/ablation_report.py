"""Ablation results as plain values, as a text table, and as a heat map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from lit_mem.localize.ablation import METRICS, Ablation, Metrics
from lit_mem.localize.parts import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES: Final = {
    "auroc": "decrease of the reference attack's AUROC",
    "perplexity_members": "increase of the members' perplexity",
    "ngram_rate": "decrease of the members' n-gram rate",
}
_MOST_LINES: Final = 16
_MOST_NUMBERS: Final = 160


def as_json(found: Ablation, checkpoint: str) -> dict[str, Any]:
    """All metrics as plain values, each measured while that part was off."""
    layers, matrices = found.parts.layers, found.parts.matrices

    def grid(name: str) -> list[list[float | None]] | None:
        if name == "ngram_rate" and found.metrics[None]["ngram_rate"] is None:
            return None
        return [[_metric(found.metrics, Part(layer, matrix), name) for matrix in matrices] for layer in layers]

    return {
        "schema": 1,
        "checkpoint": checkpoint,
        "members": found.sizes[0],
        "heldout": found.sizes[1],
        "baseline": found.metrics[None],
        "all_off": found.metrics[Part()],
        "matrices": matrices,
        "layers": layers,
        "layer_matrix": {name: grid(name) for name in METRICS},
        "by_matrix": {matrix: found.metrics[Part(matrix=matrix)] for matrix in matrices},
        "by_layer": {str(layer): found.metrics[Part(layer=layer)] for layer in layers},
    }


def _metric(metrics: Mapping[Part | None, Metrics], part: Part, name: str) -> float | None:
    return metrics[part][name] if part in metrics else None  # type: ignore[literal-required,no-any-return]


def lines(result: Mapping[str, Any]) -> list[str]:
    """A text table of each metric with a part turned off, and its change."""
    names = [name for name in METRICS if result["baseline"][name] is not None]
    headings = {"auroc": "AUROC", "perplexity_members": "perplexity", "ngram_rate": "n-gram rate"}
    rows = [["turned off", *(headings[name] for name in names)]]
    rows.append(["nothing", *(_number(result["baseline"][name]) for name in names)])
    rows.append(["everything", *_cells(result, result["all_off"], names)])
    rows += [[matrix, *_cells(result, part, names)] for matrix, part in result["by_matrix"].items()]
    strongest = dict(_strongest(result))
    rows += [[f"layer {layer}", *_cells(result, part, names)] for layer, part in strongest.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = len(result["by_layer"]) - len(strongest)
    return table + ([f"({left} more layers, with a smaller decrease of AUROC, are in the file)"] if left else [])


def _strongest(result: Mapping[str, Any]) -> Iterable[tuple[str, Metrics]]:
    """The layers to print, in order."""
    ranked = sorted(result["by_layer"].items(), key=lambda entry: entry[1]["auroc"])[:_MOST_LINES]
    return sorted(ranked, key=lambda entry: int(entry[0]))


def _cells(result: Mapping[str, Any], part: Any, names: Iterable[str]) -> list[str]:
    cells = []
    for name in names:
        value, before = part[name], result["baseline"][name]
        cells.append(_number(value) + ("" if value is None else f" ({value - before:+.3f})"))
    return cells


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def heat_map(result: Mapping[str, Any]) -> Figure:
    """Heat map of layers × matrices, one panel per metric: the darker, the larger the effect of that part."""
    import numpy as np
    from matplotlib.figure import Figure

    names = [name for name in METRICS if result["layer_matrix"][name] is not None]
    layers, matrices = result["layers"], result["matrices"]
    wide, high = max(3.4, 0.62 * len(matrices) + 1.6), min(14.0, max(2.2, 0.34 * len(layers) + 0.6))
    figure = Figure(figsize=(wide * len(names), high + 1.5), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        before = result["baseline"][name]
        sign = 1 if name == "perplexity_members" else -1
        values = np.array(
            [
                [math.nan if value is None or before is None else sign * (value - before) for value in row]
                for row in result["layer_matrix"][name]
            ]
        )
        limit = float(np.nanmax(np.abs(values), initial=0.0, where=~np.isnan(values))) or 1.0
        axes.set_facecolor("0.85")  # no such part in the adapter
        image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_xticks(range(len(matrices)), matrices, rotation=45, ha="right", fontsize=8)
        step = max(1, len(layers) // 32)
        axes.set_yticks(range(0, len(layers), step), layers[::step], fontsize=8)
        axes.set_title(f"{_TITLES[name]}\n(whole adapter: {_number(before)})", fontsize=9)
        if values.size <= _MOST_NUMBERS:
            for (row, column), value in np.ndenumerate(values):
                shade = "white" if abs(value) > 0.6 * limit else "black"
                text = "" if math.isnan(value) else f"{value:.3f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=shade)
        figure.colorbar(image, ax=axes, shrink=0.9).ax.tick_params(labelsize=7)
    panels[0].set_ylabel("layer", fontsize=9)
    figure.suptitle("Change in memorization when one matrix of one layer is turned off", fontsize=10)
    return figure
