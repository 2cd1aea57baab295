"""A plot as pixels for loggers, or as SVG in the colours of a page, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lit_mem.plots.style import FAINT, INK, LIMIT, SERIES, SOFT

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

VARIABLES: Final = {
    INK: "--ink",
    SOFT: "--soft",
    FAINT: "--line",
    LIMIT: "--bad",
    **{colour: f"--c{i}" for i, colour in enumerate(SERIES, start=1)},
}
"""The variable of a page's style sheet that stands for each colour of a plot."""

_OF_SERIES: Final = re.compile(r".*-s\d+-\d+").fullmatch
_DIGITS: Final = re.compile(r"(\.\d\d)\d+")
_COLOUR: Final = re.compile(r"((?:fill|stroke): )(#[0-9a-f]{6})\b")


@contextmanager
def any_script() -> Iterator[None]:
    """Draw words of the data without a warning for each character that the font lacks (it becomes a box)."""
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


class Series(NamedTuple):
    """What one entry of a legend stands for.

    Attributes:
        name: of the entry.
        colour: of the line or area, as a style sheet has it.
        kind: "line", "dashed", "area" or "dots".
        points: where each of its data points lies in the units of the SVG; NaN for one that is not drawn. Empty for
            a line that has no data of its own, such as a limit.
    """

    name: str
    colour: str
    kind: str
    points: list[tuple[float, float]]


class Drawing(NamedTuple):
    """A plot as SVG.

    Attributes:
        svg: the element. All that belongs to series i has an id that starts with `{slug}-s{i}-`.
        series: in the order of the legend, which the element itself does not have.
    """

    svg: str
    series: list[Series]


def svg(plot: Figure, slug: str, title: str, description: str) -> Drawing:
    """The plot as an element of a page, the same text whenever it is drawn from the same data.

    Args:
        plot: what one of the functions of this package returns; it is changed. Every artist whose gid is set belongs
            to the series of that name.
        slug: id of the plot, unique on the page; every id inside starts with it.
        title: what a screen reader calls it.
        description: what a screen reader reads in place of the plot.
    """
    import matplotlib

    groups = _grouped(plot)
    for i, artists in enumerate(groups.values()):
        for j, artist in enumerate(artists):
            artist.set_gid(f"s{i}-{j}")
    for legend in list(plot.legends):
        legend.remove()
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
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*; ", "", text)
    text = _smaller(text)
    box = re.search(r'viewBox="([^"]*)"', text)
    head = (
        f'<svg viewBox="{box[1] if box else ""}" role="img" '
        f'aria-labelledby="{slug}-t {slug}-d"><title id="{slug}-t">{escape(title)}</title>'
        f'<desc id="{slug}-d">{escape(description)}</desc>'
    )
    return Drawing(head + text[text.index(">") + 1 :], [_series(name, found, plot) for name, found in groups.items()])


def _grouped(plot: Figure) -> dict[str, list[Artist]]:
    """The artists of each series, series with data first."""
    groups: dict[str, list[Artist]] = {}
    for axes in plot.axes:
        for artist in axes.get_children():
            if (name := artist.get_gid()) is not None:
                groups.setdefault(name, []).append(artist)
    return dict(sorted(groups.items(), key=lambda group: not any(len(_data(artist)[1]) for artist in group[1])))


def _series(name: str, artists: list[Artist], plot: Figure) -> Series:
    """The series of some artists; its points and its look are those of the first that has points, else of the first."""
    found = [(artist, *_data(artist)) for artist in artists]
    artist, kind, data = max(found, key=lambda one: len(one[2]))
    points = []
    if len(data):
        scale, high = 72 / plot.dpi, 72 * plot.get_figheight()
        for x, y in artist.axes.transData.transform(data):  # type: ignore[union-attr]
            points.append((round(x * scale, 1), round(high - y * scale, 1)))
    return Series(name, _colour(artist), kind, points)


def _data(artist: Artist) -> tuple[str, Any]:
    """How an artist looks in a legend, and the (N, 2) data points that a reader may want the values of."""
    import numpy as np
    from matplotlib.collections import PathCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import StepPatch

    none = np.empty((0, 2))
    if isinstance(artist, PathCollection):
        return "dots", np.asarray(artist.get_offsets(), dtype=float)
    if isinstance(artist, StepPatch):
        values, edges, _ = artist.get_data()
        return "area", np.column_stack([(edges[1:] + edges[:-1]) / 2, values])
    if isinstance(artist, Line2D):
        # A line across the whole plot is in units of the data in one direction only.
        in_data = all(artist.get_transform().contains_branch_seperately(artist.axes.transData))  # type: ignore[union-attr]
        data = artist.get_xydata() if in_data else none
        return "dashed" if artist.is_dashed() else "line", data
    return "line", none


def _colour(artist: Any) -> str:
    """Of an artist, as the page's variable where there is one."""
    from matplotlib.colors import to_hex

    colour = artist.get_facecolor() if hasattr(artist, "get_facecolor") else artist.get_color()
    hexed = to_hex(colour[0] if getattr(colour, "ndim", 1) == 2 else colour)
    return f"var({VARIABLES[hexed]})" if hexed in VARIABLES else hexed


def _smaller(text: str) -> str:
    r"""The same drawing in fewer characters.

    Only ids that are used stay, and those of series; coordinates are cut to a hundredth of a point; invisible
    backgrounds and groups without an attribute go; markers of a group have one style if they share it.

    >>> _smaller('<g id="a-b">\n <g clip-path="c">\n  <use x="1.234" style="d"/>\n  <use x="2" style="d"/>\n </g></g>')
    '<g>\n<g clip-path="c" style="d">\n<use x="1.23"/>\n<use x="2"/>\n</g></g>'
    """
    used = dict.fromkeys(re.findall(r'(?:href="#|url\(#)([^")]*)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used or _OF_SERIES(found[1]) else "", text)
    text = re.sub(r"\n\s+", "\n", text)
    text = re.sub(r'<path d="[^"]*" style="fill: none"/>', "", text)  # backgrounds, which are transparent
    text = text.replace("xlink:href", "href")
    for i, name in enumerate(used):  # a letter and ten hexadecimal digits, after the slug
        text = text.replace(name, f"{name.rpartition('-')[0]}-{i}")
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r'(?<= )(?:d|x|y|transform)="[^"]*', lambda found: _DIGITS.sub(r"\1", found[0]), text)
    for _ in range(text.count("<g>")):
        text, n = re.subn(r"<g>\s*((?:(?!</?g[ >]).)*?)\s*</g>", r"\1", text, flags=re.DOTALL)
        if not n:
            break

    def shared(match: re.Match[str]) -> str:
        styles = set(re.findall(r'style="([^"]*)"', match[2]))
        if len(styles) > 1:
            return match[0]
        return f'{match[1]} style="{styles.pop()}">' + re.sub(r' style="[^"]*"', "", match[2])

    return re.sub(r'(<g clip-path="[^"]*")>((?:\s*<use [^>]*style="[^"]*"/>)+)', shared, text)


def _with_variables(style: str) -> str:
    """A style attribute with the page's colours.

    >>> _with_variables("fill: #1b1f24; stroke: #0b67b8")
    'fill: var(--ink); stroke: var(--c1)'
    """

    def named(match: re.Match[str]) -> str:
        variable = VARIABLES.get(match[2])
        return match[0] if variable is None else f"{match[1]}var({variable})"

    return _COLOUR.sub(named, style)
