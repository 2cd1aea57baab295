"""What the page's script works on, without a browser: the points of plots, the policy, and hostile names."""

import base64
import hashlib
import importlib.util
import json
import re
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

from lit_mem.cli import main as cli
from lit_mem.functional.numbers import shown
from lit_mem.plots.curves import Line
from lit_mem.report.page import page
from lit_mem.report.plots import curves, histogram, roc, scatter, trade_off
from lit_mem.report.run_plots import run_plots
from lit_mem.report.run_report import run_report
from lit_mem.report.sweep_plots import sweep_plots
from lit_mem.report.sweep_report import sweep_report

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<!--"
BLOCK = re.compile(r"<script([^>]*)>(.*?)</script>", re.DOTALL)
FIGURE = re.compile(r'<figure id="([^"]+)">.*?</figure>', re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_report(made.write_run(tmp_path_factory.mktemp("run") / "run", text=True))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return sweep_report(made.write_sweep(tmp_path_factory.mktemp("sweep") / "sweep"))


def plots_of(report):
    parts = run_plots(report) if report["kind"] == "run" else sweep_plots(report)
    return {plot.slug: plot for part in parts.values() for plot in part}


def shown_by(plot):
    """Series -> what its points show."""
    return {one["name"]: [tuple(point[2:]) for point in one["points"]] for one in plot.points["series"]}


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_points_of_curves_show_exactly_what_the_table_has(kind, request):
    found = 0
    for plot in plots_of(request.getfixturevalue(kind)).values():
        if plot.points["names"][2:] != ["95 % interval"]:
            continue  # not curves
        expected = {}
        for column, name in enumerate(plot.header[1:], start=1):
            if name.endswith(", 95 % interval"):
                continue
            banded = plot.header[column + 1 : column + 2] == [f"{name}, 95 % interval"]
            ends = [row[column + 1 : column + 2] if banded else [] for row in plot.rows]
            rows = zip(plot.rows, ends, strict=True)
            measured = [(row[0], row[column], *end) for row, end in rows if row[column] != "not measured"]
            expected[name] = measured
        points = {name: rows for name, rows in shown_by(plot).items() if name in expected}
        assert points == expected, plot.slug
        found += 1
    assert found >= 3


def test_points_of_a_trade_off_a_histogram_and_a_scatter_plot_are_the_rows_of_the_table(run):
    plots = plots_of(run)
    assert [(*rest, label) for label, *rest in plots["tradeoff"].rows] == [
        (x, y, label) for x, y, label in shown_by(plots["tradeoff"])["points"]
    ]
    bins = plots["histogram-1"]
    members, heldout = shown_by(bins).values()
    assert members == [(row[0], row[1]) for row in bins.rows]
    assert heldout == [(row[0], row[2]) for row in bins.rows]
    dots = plots["scatter-1"]
    by_set = {"members": "member", "held-out texts": "held-out"}
    for name, points in shown_by(dots).items():
        assert set(points) == {tuple(row[1:]) for row in dots.rows if row[0] == by_set[name]}
        assert points


def test_points_of_a_roc_are_corners_of_the_curve(run):
    plot = plots_of(run)["roc"]
    for one in run["examples"]["attacks"]:
        corners = {(shown(x), shown(y)) for x, y in zip(one["roc"]["fpr"], one["roc"]["tpr"], strict=True)}
        points = shown_by(plot)[one["name"]]
        assert 1 < len(points) <= len(corners)
        assert set(points) <= corners
    places = plot.points["series"][0]["points"]
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) >= 3 for a, b in pairwise(places))


def test_each_point_lies_where_its_marker_is_drawn(drawn):
    plot = curves("c", "t", "", [Line("a", [0, 1, 2], [0.5, None, 0.7])], "x", "y")
    group = re.search(r'<g id="c-s0-0">.*?</g>\s*</g>', plot.svg, re.DOTALL)[0]
    markers = [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', group)]
    places = [tuple(point[:2]) for point in plot.points["series"][0]["points"]]
    assert len(places) == 2
    assert places == [pytest.approx(marker, abs=0.06) for marker in markers]
    assert [point[2:] for point in plot.points["series"][0]["points"]] == [["0", "0.500"], ["2", "0.700"]]


def test_every_series_has_its_parts_in_the_drawing(drawn, run):
    for plot in plots_of(run).values():
        for i, one in enumerate(plot.series):
            assert f'id="{plot.slug}-s{i}-0"' in plot.svg, (plot.slug, one.name)
        assert not re.search(rf'id="{plot.slug}-s{len(plot.series)}-', plot.svg)
        assert "legend" not in plot.svg


def test_lines_without_data_show_nothing():
    plot = curves("c", "t", "", [Line("a", [0, 1], [0.5, 0.7])], "x", "y", limits=[0.6], guess=0.5)
    assert [(one.name, len(one.points), one.kind) for one in plot.series] == [
        ("a", 2, "line"), ("guessing (0.5)", 0, "dashed"), ("limit (0.6)", 0, "dashed"),
    ]  # fmt: skip
    assert [one.colour for one in plot.series] == ["var(--c1)", "var(--soft)", "var(--bad)"]


def test_a_legend_has_the_colours_and_kinds_of_its_series(run, sweep):
    plots = plots_of(run)
    sides = ["var(--c1)", "var(--c2)"]
    for slug, kind in (("histogram-1", "area"), ("scatter-1", "dots"), ("perplexity", "line")):
        assert [one.colour for one in plots[slug].series] == sides, slug
        assert {one.kind for one in plots[slug].series} == {kind}
    front = plots_of(sweep)["front"].series
    assert [(one.name, one.colour) for one in front[:2]] == [("points", sides[0]), ("the best of both", sides[1])]


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_the_policy_allows_the_one_script_and_no_other(kind, request):
    html = page(request.getfixturevalue(kind) | {"digest": "", "files": [], "written": ""})
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1])
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    scripts = [text for attributes, text in BLOCK.findall(html) if "type" not in attributes]
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert directives["script-src"] == f"'sha256-{digest}'"
    assert directives["default-src"] == "'none'"
    assert not re.search(r"\son\w+=", re.sub(BLOCK, "", html))


@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_without_a_script_the_page_has_plots_legends_and_tables_and_no_control(kind, request):
    report = request.getfixturevalue(kind)
    html = page(report | {"digest": "", "files": [], "written": ""})
    assert not re.search(r"<(button|input|select|form)\b", BLOCK.sub("", html))
    assert "hidden" not in re.sub(r"<style>.*?</style>", "", BLOCK.sub("", html), flags=re.DOTALL)
    for plot in plots_of(report).values():
        figure = next(found[0] for found in FIGURE.finditer(html) if found[1] == plot.slug)
        assert "<svg" in figure
        assert "<table>" in figure
        assert figure.count('class="swatch') == (len(plot.series) if len(plot.series) > 1 else 0)
        assert json.loads(BLOCK.search(figure)[2]) == plot.points


def hostile_plots():
    half = {"edges": [0.0, 1.0, 2.0], "members": [1, 2], "heldout": [2, 1]}
    attack = {
        "name": HOSTILE, "auroc": 0.5, "auroc_low": 0.4, "auroc_high": 0.6, "n_members": 3, "n_heldout": 3,
        "roc": {"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 0.7, 1.0]}, "histogram": half,
    }  # fmt: skip
    dots = {"perplexity": [1.0, 2.0, 3.0], "value": [0.1, 0.2, 0.3], "member": [True, True, False], "spearman": None}
    yield curves(
        "a", HOSTILE, HOSTILE, [Line(HOSTILE, [0, 1], [0.5, 0.6]), Line("b", [0, 1], [0, 1])], HOSTILE, HOSTILE
    )
    yield trade_off("b", HOSTILE, HOSTILE, [(HOSTILE, 1.0, 2.0), ("c", 2.0, 3.0)], HOSTILE, HOSTILE)
    yield roc("c", [attack])
    yield histogram("d", attack)
    yield scatter("e", dots, HOSTILE)


def test_hostile_names_stay_inert_in_every_plot(drawn, run, monkeypatch):
    plots = list(hostile_plots())
    monkeypatch.setattr("lit_mem.report.page.run_plots", lambda report: {"curves": plots, "more": [], "examples": []})
    html = page(run | {"digest": "", "files": [], "written": "", "examples": None})
    blocks = [text for attributes, text in BLOCK.findall(html) if "json" in attributes]
    assert [json.loads(text) for text in blocks] == [plot.points for plot in plots]
    assert all(not {"<", ">", "&"} & set(text) for text in blocks)
    assert json.loads(blocks[0])["series"][0]["name"] == HOSTILE
    outside = BLOCK.sub("", html)
    assert "<img" not in outside
    assert "<!--" not in outside
    assert outside.count("&lt;img src=x onerror=alert(1)&gt;") > 10


def test_hostile_columns_of_the_data_stay_inert(tmp_path, drawn):
    folder = made.write_run(tmp_path / "run", origin=HOSTILE, text=True)
    path = folder / "metrics.csv"
    path.write_text(path.read_text().replace("mia/loss", "mia/</script><img src=x>"))
    cli.main(["report", str(folder), "--text", "true"])
    html = (folder / "report.html").read_text()
    outside = BLOCK.sub("", html)
    assert len(BLOCK.findall(html)) == 1 + html.count("<figure")
    assert "<img" not in outside
    assert "alert(1)" in outside
    assert "secret text" in outside
    assert not any("secret text" in text for _, text in BLOCK.findall(html))
