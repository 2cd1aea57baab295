"""The figures' content, and that their fixed margins hold what they must, by matplotlib's own measure."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lit_mem.functional.auroc import Auroc, GroupAuroc
from lit_mem.functional.roc import roc_curve
from lit_mem.plots.figures import histograms_figure, roc_figure
from lit_mem.plots.scatter_figure import scatter_figure
from lit_mem.plots.slices_figure import exposure_figure

MEMBER = torch.arange(200) < 100


def scores(seed):
    return torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + MEMBER


def curves():
    return {f"attack_{i}": roc_curve(scores(i), MEMBER) for i in range(8)}


def histograms():
    return histograms_figure({f"attack_{i}": (scores(i)[MEMBER], scores(i)[~MEMBER]) for i in range(8)})


def scatter():
    measures = {f"measure_{i}": scores(i).sigmoid() for i in range(9)}
    return scatter_figure(scores(9).exp(), MEMBER, measures, dict.fromkeys(measures, 0.5))


def area(i):
    return Auroc(0.5 + 0.02 * i, 0.4 + 0.02 * i, 0.6 + 0.02 * i)


def exposure(label="F"):
    columns = {
        column: [GroupAuroc(f"{label}{i}", 40, 50, area(i)) for i in range(n)]
        for column, n in (("sex", 2), ("age", 4), ("kind of event", 1), ("ward", 15))
    }
    return exposure_figure(columns, 0.6, "reference")


def drawn(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


FIGURES = {
    "roc": lambda: roc_figure(curves(), 100),
    "roc of ten": lambda: roc_figure(curves(), 3),
    "scores": histograms,
    "scatter": scatter,
    "exposure": exposure,
    "exposure, wide labels": lambda: exposure("W" * 40),
    "exposure, narrow labels": lambda: exposure("i"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_everything_lies_inside_the_figure(name):
    figure = FIGURES[name]()
    box = figure.get_tightbbox(drawn(figure).get_renderer())  # of all that is drawn, in inches
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()


@pytest.mark.parametrize("name", ["scores", "scatter", "exposure"])
def test_no_title_runs_into_another_panel(name):
    figure = FIGURES[name]()
    renderer = drawn(figure).get_renderer()
    panels = [axes.get_window_extent(renderer) for axes in figure.axes]
    for axes in figure.axes:
        for title in (axes.title, axes._left_title):
            if title.get_text():
                box = title.get_window_extent(renderer)
                assert not [panel for panel in panels if panel.overlaps(box)], title
    for one, other in itertools.combinations(panels, 2):
        assert not one.overlaps(other)


def test_the_roc_shows_every_curve_down_to_the_smallest_rate_that_can_be_told_from_0():
    figure = roc_figure(curves(), 100)
    (axes,) = figure.axes
    *lines, guessing = axes.get_lines()
    for line, (name, (fpr, tpr)) in zip(lines, curves().items(), strict=True):
        assert line.get_label() == name
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_xdata(), np.maximum(fpr.numpy(), 0.01))
        np.testing.assert_array_equal(line.get_ydata(), np.maximum(tpr.numpy(), 0.01))
    np.testing.assert_array_equal(guessing.get_xydata(), [[0.01, 0.01], [1, 1]])
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_title()) == ("log", "log", "Membership inference")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*curves(), "guessing"]


def test_the_histograms_are_numpys_of_both_sets():
    figure = histograms()
    for i, axes in enumerate(figure.axes):
        edges = np.linspace(scores(i).min().item(), scores(i).max().item(), 41)
        for patch, part in zip(axes.patches, (MEMBER, ~MEMBER), strict=True):
            expected, _ = np.histogram(scores(i)[part].numpy(), edges, density=True)
            np.testing.assert_allclose(patch.get_data().values, expected)
        assert axes.get_title() == f"attack_{i}"
        assert 3 <= len(axes.get_xticks()) <= 8
        assert 3 <= len(axes.get_yticks()) <= 8


def test_the_exposures_labels_stand_beside_their_panel_and_share_one_axis():
    figure = exposure("W" * 40)
    renderer = drawn(figure).get_renderer()
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        panel = axes.get_window_extent(renderer)
        assert panel.width > 0.25 * figure.bbox.width
        for label in axes.get_yticklabels():
            assert label.get_window_extent(renderer).x1 < panel.x0
    told = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in figure.axes]
    assert told == [False] * (len(figure.axes) - 1) + [True]
