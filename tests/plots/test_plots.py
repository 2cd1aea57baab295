"""What each plot shows, and that nothing leaves its margins, by matplotlib's own measurement."""

import itertools

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from lit_mem.functional.auroc import Auroc, GroupAuroc
from lit_mem.functional.histogram import histogram
from lit_mem.functional.roc import roc_curve
from lit_mem.plots.curves import Line, curves_plot
from lit_mem.plots.histogram import histograms_plot
from lit_mem.plots.output import pixels
from lit_mem.plots.prefixes import prefixes_plot
from lit_mem.plots.roc import roc_plot
from lit_mem.plots.scatter import scatter_plot
from lit_mem.plots.subgroups import subgroups_plot
from lit_mem.plots.trade_off import trade_off_plot

MEMBER = torch.arange(200) < 100


def scores(seed):
    return torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + MEMBER


def curves():
    return {f"attack_{i}": roc_curve(scores(i), MEMBER) for i in range(8)}


def histograms(n=8):
    return histograms_plot({f"attack_{i}": histogram(scores(i)[MEMBER], scores(i)[~MEMBER]) for i in range(n)})


def scatter(n=9):
    measures = {f"measure_{i}": scores(i).sigmoid() for i in range(n)}
    return scatter_plot(scores(9).exp(), MEMBER, measures, dict.fromkeys(measures, 0.5))


def area(i):
    return Auroc(0.5 + 0.02 * i, 0.4 + 0.02 * i, 0.6 + 0.02 * i)


def subgroups(label="F"):
    columns = {
        column: [GroupAuroc(f"{label}{i}", 40, 50, area(i)) for i in range(n)]
        for column, n in (("sex", 2), ("age", 4), ("kind of event", 1), ("ward", 15))
    }
    return subgroups_plot(columns, 0.6, "reference")


def drawn(plot):
    canvas = FigureCanvasAgg(plot)
    canvas.draw()
    return canvas


def prefixes(n=3):
    lines = {"members": [0.1, 0.2, 0.4], "held-out": [0.1, 0.1, 0.2], "members, base": [0.1, 0.15, 0.2]}
    return prefixes_plot({f"measure_{i}": lines for i in range(n)}, [32, 8, 16])


def epochs():
    lines = [Line(f"attack_{i}", [0, 1, 2], [0.5, None, 0.6 + i / 20]) for i in range(10)]
    lines[0].low, lines[0].high = [0.4, None, 0.5], [0.6, None, 0.7]
    return curves_plot({"AUROC": lines}, "epoch", limits=[0.7], guess=0.5)


def trade_off():
    points = [(f"a long name of a configuration, {i}", 3 + i / 10, 0.5 + i / 20) for i in range(8)]
    return trade_off_plot(points, "perplexity", "AUROC", 0.6, joined=False, front=[points[2][1:], points[0][1:]])


PLOTS = {
    "roc": lambda: roc_plot(curves(), 100, title="Membership inference"),
    "roc of ten": lambda: roc_plot(curves(), 3),
    "scores": histograms,
    "scores of one attack": lambda: histograms(1),
    "scatter": scatter,
    "scatter of one measure": lambda: scatter(1),
    "prefixes": prefixes,
    "prefixes of one measure": lambda: prefixes(1),
    "curves": epochs,
    "trade-off": trade_off,
    "subgroups": subgroups,
    "subgroups, wide labels": lambda: subgroups("W" * 40),
    "subgroups, narrow labels": lambda: subgroups("i"),
}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", PLOTS)
def test_everything_lies_inside_the_plot(name):
    plot = PLOTS[name]()
    box = plot.get_tightbbox(drawn(plot).get_renderer())  # of all that is drawn, in inches
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= plot.get_figwidth()
    assert box.y1 <= plot.get_figheight()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scores", "scatter", "subgroups", "prefixes"])
def test_no_title_runs_into_another_panel(name):
    plot = PLOTS[name]()
    renderer = drawn(plot).get_renderer()
    panels = [axes.get_window_extent(renderer) for axes in plot.axes]
    for axes in plot.axes:
        for title in (axes.title, axes._left_title):
            if title.get_text():
                box = title.get_window_extent(renderer)
                assert not [panel for panel in panels if panel.overlaps(box)], title
    for one, other in itertools.combinations(panels, 2):
        assert not one.overlaps(other)


def test_the_roc_shows_every_curve_down_to_the_smallest_rate_that_can_be_distinguished_from_0():
    plot = roc_plot(curves(), 100, title="Membership inference")
    (axes,) = plot.axes
    *lines, guessing = axes.get_lines()
    for line, (name, (fpr, tpr)) in zip(lines, curves().items(), strict=True):
        assert line.get_label() == name
        assert line.get_drawstyle() == "steps-post"
        np.testing.assert_array_equal(line.get_xdata(), np.maximum(fpr.numpy(), 0.01))
        np.testing.assert_array_equal(line.get_ydata(), np.maximum(tpr.numpy(), 0.01))
    np.testing.assert_array_equal(guessing.get_xydata(), [[0.01, 0.01], [1, 1]])
    assert (axes.get_xscale(), axes.get_yscale(), axes.get_title()) == ("log", "log", "Membership inference")
    assert [text.get_text() for text in plot.legends[0].get_texts()] == [*curves(), "guessing"]


def test_the_histograms_are_numpys_of_both_sets():
    plot = histograms()
    for i, axes in enumerate(plot.axes):
        edges = axes.patches[0].get_data().edges
        assert edges[0] <= scores(i).min() < edges[1]
        assert edges[-2] < scores(i).max() <= edges[-1]
        # Each set has its area and its line.
        for patch, part in zip(axes.patches, (MEMBER, MEMBER, ~MEMBER, ~MEMBER), strict=True):
            expected, _ = np.histogram(scores(i)[part].numpy(), edges)
            np.testing.assert_allclose(patch.get_data().values, expected / 100)
        assert axes.get_title() == f"attack_{i}"
        assert 3 <= len(axes.get_xticks()) <= 8
        assert 3 <= len(axes.get_yticks()) <= 8


@pytest.mark.slow
def test_the_subgroups_labels_stand_beside_their_panel_and_share_one_axis():
    plot = subgroups("W" * 40)
    renderer = drawn(plot).get_renderer()
    assert len({axes.get_xlim() for axes in plot.axes}) == 1
    for axes in plot.axes:
        panel = axes.get_window_extent(renderer)
        assert panel.width > 0.25 * plot.bbox.width
        for label in axes.get_yticklabels():
            assert label.get_window_extent(renderer).x1 < panel.x0
    labelled = [any(label.get_visible() for label in axes.get_xticklabels()) for axes in plot.axes]
    assert labelled == [False] * (len(plot.axes) - 1) + [True]


def test_curves_show_their_points_intervals_and_limits():
    plot = epochs()
    (axes,) = plot.axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["limit (0.7)"].get_ydata()) == [0.7, 0.7]
    assert list(lines["guessing (0.5)"].get_ydata()) == [0.5, 0.5]
    np.testing.assert_array_equal(lines["attack_3"].get_ydata(), [0.5, np.nan, 0.75])
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("epoch", "AUROC", "")
    assert len(axes.collections) == 1  # the interval of the first


def test_prefixes_are_drawn_in_their_order_and_the_base_dashed():
    for axes in prefixes().axes[:3]:
        members, _, base = axes.get_lines()
        assert list(members.get_xydata().flatten()) == [8, 0.2, 16, 0.4, 32, 0.1]
        assert (members.is_dashed(), base.is_dashed()) == (False, True)
        assert members.get_color() == base.get_color()
    assert [axes.get_title() for axes in prefixes().axes[:3]] == ["measure_0", "measure_1", "measure_2"]
    assert prefixes(1).axes[0].get_ylabel() == "measure_0"


def test_the_trade_off_names_every_point_and_draws_the_front_as_steps():
    (axes,) = trade_off().axes
    assert [point.tolist() for point in axes.collections[0].get_offsets()] == [
        pytest.approx([3 + i / 10, 0.5 + i / 20]) for i in range(8)
    ]
    assert [text.get_text() for text in axes.texts] == [
        "limit (0.6)",
        *(f"a long name of a configuration, {i}" for i in range(8)),
    ]
    _, front = axes.get_lines()
    assert front.get_drawstyle() == "steps-post"
    assert list(front.get_xdata()) == pytest.approx([3, 3.2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["roc", "scores", "subgroups"])
def test_the_style_of_the_process_changes_no_plot(name):
    expected = pixels(PLOTS[name]())
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20, "xtick.color": "red", "axes.grid": False}):
        styled = pixels(PLOTS[name]())
    np.testing.assert_array_equal(styled, expected)
