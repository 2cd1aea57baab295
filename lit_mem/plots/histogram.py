"""The distribution of attack scores in both sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lit_mem.functional.histogram import Histogram
from lit_mem.plots.style import HELDOUT, MEMBERS, TITLE_AT, Panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@styled
def histograms_plot(attacks: Mapping[str, Histogram]) -> Figure:
    """A panel for each attack.

    Args:
        attacks: for each attack how many scores of each set are in each bin; bars are shares of the set.
    """
    panels = Panels(len(attacks))
    for axes, (name, bins) in zip(panels.axes, attacks.items(), strict=False):
        for label, counts, colour in (("members", bins.members, MEMBERS), ("held-out texts", bins.heldout, HELDOUT)):
            n, width = sum(counts), 1.4 if panels.single else 0.9
            entry = f"{label} ({n})"
            shares = [count / max(n, 1) for count in counts]
            axes.stairs(shares, bins.edges, fill=True, color=colour, alpha=0.35, linewidth=0, gid=entry)
            axes.stairs(shares, bins.edges, color=colour, linewidth=width, label=entry, gid=entry)
        if not panels.single:
            axes.set_title(name, fontsize=9, y=TITLE_AT)
    score = f"score of the {next(iter(attacks))} attack" if len(attacks) == 1 else "attack score"
    panels.label(f"{score} (higher = more member-like)", "share of the set")
    return panels.done()
