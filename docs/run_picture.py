"""Draws the metrics of a run, as in the README: perplexity, membership inference, extraction, and by copies of a text.

Usage: python docs/run_picture.py logs/quickstart/version_0 docs/tensorboard.png
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lit_mem.audit.thresholds import Threshold
from lit_mem.plots.output import pixels
from lit_mem.plots.style import HELDOUT, LIMIT, MEMBERS, SERIES, SOFT, TITLE_AT, Panels, styled
from lit_mem.report.history import History, history_of, is_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI, COLOURS = 150, 128
ATTACK = "mia/reference_auroc"
COPIES = {"0": "once", "1": "twice", "2_or_more": "three times or more"}
"""Value of the slice by duplicates -> how often such a text is in the training set."""


class Curve(NamedTuple):
    """A metric and how it is drawn; one that was never measured is not drawn."""

    metric: str
    label: str | None
    colour: str
    dashed: bool = False
    wide: bool = False


def panels_of(history: History) -> dict[str, list[Curve]]:
    """The curves of each panel by its title."""
    attacks = sorted(name for name in history.names if re.fullmatch(r"mia/.+_auroc", name) and name != ATTACK)
    others = [Curve(name, None if i else "other attacks", "#b6bdc7") for i, name in enumerate(attacks)]
    written = [
        Curve(f"slice/duplicates/{value}/exact_rate", f"in the training set {often}", SERIES[colour])
        for (value, often), colour in zip(COPIES.items(), (3, 2, 1), strict=True)
    ]
    if any(curve.metric in history.names for curve in written):
        title = "Whole suffixes extracted, by copies in the training set"
        written = [Curve("extraction/exact_rate", "all members", MEMBERS, wide=True), *written]
        written.append(Curve("canary/extraction_rate", "canaries", SERIES[5], dashed=True))
    elif "canary/exposure_mean" in history.names:
        title = "Exposure of canaries, bits, by copies in the training set"
        found = (re.fullmatch(r"canary/exposure_mean_x(\d+)", name) for name in history.names)
        written = [Curve("canary/exposure_mean", "all canaries", MEMBERS, wide=True)]
        for n, colour in zip(sorted(int(one[1]) for one in found if one), cycle(SERIES[1:]), strict=False):
            written.append(Curve(f"canary/exposure_mean_x{n}", f"{n}-fold", colour))
    else:
        title = "Whole suffixes extracted, share"
        written = [
            Curve("extraction/exact_rate", "members", MEMBERS, wide=True),
            Curve("extraction/exact_rate_heldout", "held-out texts", HELDOUT),
        ]
    return {
        "Perplexity": [
            Curve("memorization/perplexity_members", "members", MEMBERS, wide=True),
            Curve("val/perplexity", "held-out texts", HELDOUT),
        ],
        "Membership inference, AUROC": [*others, Curve(ATTACK, "reference attack, 95 % interval", MEMBERS, wide=True)],
        "N-gram rate: longest run of true words, share of the suffix": [
            Curve("extraction/ngram_rate", "members", MEMBERS, wide=True),
            Curve("extraction/ngram_rate_heldout", "held-out texts", HELDOUT),
            Curve("extraction/ngram_rate_base", "members, base model", MEMBERS, dashed=True),
        ],
        title: written,
    }


@styled
def picture(history: History, limits: Mapping[str, float]) -> Figure:
    """Four panels over the epochs.

    Args:
        history: of a run.
        limits: by metric; each is a line in the panels with its metric.
    """
    panels = panels_of(history)
    made = Panels(len(panels), width=4.4, height=2.75, columns=2)
    x = [validation.epoch for validation in history.validations]
    for axes, (title, curves) in zip(made.axes, panels.items(), strict=True):
        for curve in curves:
            _draw(axes, history, x, curve)
        for metric, limit in limits.items():
            if any(curve.metric == metric for curve in curves):
                axes.axhline(limit, color=LIMIT, linewidth=1.2, linestyle=(0, (5, 3)), label=f"limit ({limit:g})")
        if any(curve.metric == ATTACK for curve in curves):
            axes.axhline(0.5, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label="guessing")
            axes.set_ylim(0.4, 1.02)
        elif not any(curve.metric == "val/perplexity" for curve in curves):
            axes.set_ylim(0, max(1.1 * axes.dataLim.y1, 0.01))
        axes.set_title(title, fontsize=9, y=TITLE_AT, loc="left")
        axes.set_xticks(x)
        axes.legend(fontsize=7.5, loc="best")
    made.figure.supxlabel("epoch (0: before training)", fontsize=9, y=0.01)
    made.figure.subplots_adjust(left=0.05, right=0.99, top=0.95, bottom=0.1, hspace=0.25, wspace=0.13)
    made.figure.set_dpi(DPI)
    return made.figure


def _draw(axes: Axes, history: History, x: Sequence[int], curve: Curve) -> None:
    def values(name: str) -> list[float]:
        return [validation.metrics.get(name, float("nan")) for validation in history.validations]

    if curve.metric not in history.names:
        return
    axes.plot(
        x, values(curve.metric), color=curve.colour, label=curve.label, linestyle=(0, (3, 2)) if curve.dashed else "-",
        linewidth=2.2 if curve.wide else 1.3, marker="o" if curve.wide else None, markersize=3,
        zorder=3 if curve.wide else 2,
    )  # fmt: skip
    if curve.wide and f"{curve.metric}_low" in history.names:
        low, high = (values(f"{curve.metric}{end}") for end in ("_low", "_high"))
        axes.fill_between(x, low, high, color=curve.colour, alpha=0.16, linewidth=0)


def main(args: list[str] | None = None) -> int:
    """Draw and write."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's log folder, with memorization.jsonl")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    options = parser.parse_args(args)
    if not is_run(options.run):
        parser.error(f"{options.run} has no memorization.jsonl; expected a run's log folder")
    history = history_of(options.run)
    stops = [Threshold.parse(text) for stop in history.stops for text in stop.thresholds]
    drawn = Image.fromarray(pixels(picture(history, {stop.name: stop.limit for stop in stops})))
    drawn.quantize(COLOURS).save(options.picture, format="PNG", optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
