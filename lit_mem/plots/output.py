"""A plot as pixels for loggers, or as SVG for a page, in whose light or dark colours it appears."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Final

from lit_mem.plots.style import FAINT, INK, LIMIT, SERIES, SOFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLES: Final = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--line",
    LIMIT: "--bad",
    **{colour: f"--c{i}" for i, colour in enumerate(SERIES, start=1)},
}
"""The variable of a page's style sheet that stands for each colour of a plot."""

_COLOUR: Final = re.compile(r"((?:fill|stroke): )(#[0-9a-f]{6})\b")


@contextmanager
def any_script() -> Iterator[None]:
    """While words of the data are drawn: what the font lacks becomes a box, without a warning for each character."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def pixels(plot: Figure) -> Any:
    """The plot as an (H, W, 3) uint8 array."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(plot)
    with any_script():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def svg(plot: Figure, slug: str, title: str, description: str) -> str:
    """The plot as an element of a page, the same text whenever it is drawn from the same data.

    Args:
        plot: what one of the functions of this package returns.
        slug: id of the plot, unique on the page; every id inside starts with it.
        title: what a screen reader calls it.
        description: what a screen reader reads in place of the plot.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": slug, "svg.fonttype": "none"}), any_script():
        plot.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # would apply to the whole page
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{slug}-', text)
    text = re.sub(r'href="#', f'href="#{slug}-', text)
    text = re.sub(r"url\(#", f"url(#{slug}-", text)
    text = re.sub(r'(?<=style=")[^"]*', lambda style: _with_variables(style[0]), text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    box = re.search(r'viewBox="([^"]*)"', text)
    head = (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box[1] if box else ""}" role="img" '
        f'aria-labelledby="{slug}-t {slug}-d"><title id="{slug}-t">{escape(title)}</title>'
        f'<desc id="{slug}-d">{escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :]


def _with_variables(style: str) -> str:
    """A style attribute with the page's colours.

    >>> _with_variables("fill: #1b1f24; stroke: #0b67b8")
    'fill: var(--ink); stroke: var(--c1)'
    """

    def named(match: re.Match[str]) -> str:
        variable = VARIABLES.get(match[2])
        return match[0] if variable is None else f"{match[1]}var({variable})"

    return _COLOUR.sub(named, style)
