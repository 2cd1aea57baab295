"""Figures as SVG inside a page: their colours are the page's own, so that they follow its light or dark scheme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH = 4.6, 3.1
"""In inches, at 72 units each: as wide as a phone's screen, so that text there is as large as it is drawn."""

INK, SOFT, FAINT, LIMIT = "#010101", "#010102", "#010103", "#010104"
SERIES: Final = ("#020101", "#020102", "#020103", "#020104", "#020105", "#020106", "#020107", "#020108")
"""Stand-ins that no drawing has by itself, each for a colour of the style sheet."""

_VARIABLES: Final = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--line",
    LIMIT: "--bad",
    **{colour: f"--c{i}" for i, colour in enumerate(SERIES, start=1)},
}
_STYLE: Final = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


@contextmanager
def drawn(high: float = HIGH) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure in the page's style."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDE, high), layout="constrained")
        yield figure, figure.add_subplot()


def svg(figure: Figure, slug: str, title: str, description: str) -> str:
    """The figure as an element of a page, the same text whenever it is drawn from the same data.

    Args:
        figure: made inside `drawn`, and saved there too.
        slug: told to no other figure of the page; goes before every id, as these share the page.
        title: what a screen reader calls it.
        description: what it says instead of the picture.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": slug}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # would rule the whole page
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{slug}-', text)
    text = re.sub(r'href="#', f'href="#{slug}-', text)
    text = re.sub(r"url\(#", f"url(#{slug}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1] if box else ""}" role="img" '
        f'aria-labelledby="{slug}-t {slug}-d"><title id="{slug}-t">{escape(title)}</title>'
        f'<desc id="{slug}-d">{escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :]
