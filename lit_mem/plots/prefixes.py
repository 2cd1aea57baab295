"""Extraction against the length of the prefix that the model is prompted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lit_mem.plots.curves import Line, curves_plot
from lit_mem.plots.style import HELDOUT, MEMBERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prefixes_plot(curves: Mapping[str, Mapping[str, Sequence[float]]], prefixes: Sequence[float]) -> Figure:
    """A panel for each measure of extraction.

    Args:
        curves: for each measure its value at every prefix, by set of texts and model ("members, base").
        prefixes: shares of a text, or numbers of tokens, one for each value of a curve.
    """
    order = sorted(range(len(prefixes)), key=lambda i: prefixes[i])
    panels = {
        name: [
            Line(
                label,
                [prefixes[i] for i in order],
                [values[i] for i in order],
                dashed="base" in label,
                colour=MEMBERS if label.startswith("members") else HELDOUT,
            )
            for label, values in lines.items()
        ]
        for name, lines in curves.items()
    }
    unit = "share of the text" if max(prefixes) < 1 else "tokens"
    return curves_plot(panels, f"prefix ({unit}); mean over the texts prompted", columns=2 if len(curves) <= 4 else 3)
