"""A plot as pixels and as SVG: colours of the page, unique ids, words for a screen reader."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import lit_mem.report
from lit_mem.plots.output import VARIABLES, pixels, svg
from lit_mem.plots.trade_off import trade_off_plot

SVG = "{http://www.w3.org/2000/svg}"


def plot(label="a <b> & #0b67b8 $x^2$"):
    return trade_off_plot([(label, 3.0, 0.6), ("other", 3.2, 0.5)], "perplexity", "AUROC", limit=0.55)


@pytest.fixture(scope="module")
def text():
    return svg(plot(), "front", "A title", "What it <shows>").svg


def test_each_colour_is_that_of_the_page_s_light_scheme():
    style = (Path(lit_mem.report.__file__).parent / "templates" / "style.css").read_text("utf-8")
    light = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", style.partition("@media")[0]))
    assert {variable: light[variable] for variable in VARIABLES.values()} == {v: k for k, v in VARIABLES.items()}


def test_svg_takes_every_colour_of_the_page(text):
    styles = " ".join(re.findall(r'style="([^"]*)"', text))
    assert not re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", styles)
    assert {"var(--ink)", "var(--soft)", "var(--line)", "var(--bad)", "var(--c1)"} <= set(
        re.findall(r"var\(--\w+\)", styles)
    )


def test_svg_has_a_title_a_description_and_ids_of_its_own(text):
    root = ElementTree.fromstring(re.sub("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', text, count=1))
    assert root.get("aria-labelledby").split() == ["front-t", "front-d"]
    assert root.find(f"{SVG}title").text == "A title"
    assert root.find(f"{SVG}desc").text == "What it <shows>"
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(one.startswith("front-") for one in ids)
    used = re.findall(r"url\(#([^)]*)\)", text) + re.findall(r'href="#([^"]*)"', text)
    assert used
    assert set(used) <= set(ids)
    assert root.find(f"{SVG}style") is None
    assert root.find(f"{SVG}metadata") is None
    assert "a <b> & #0b67b8 $x^2$" in "".join(root.itertext())


def test_svg_is_the_same_each_time(text):
    assert svg(plot(), "front", "A title", "What it <shows>").svg == text


def test_pixels_are_those_of_the_plot_in_full_colour():
    found = pixels(plot())
    assert (found.dtype, found.shape[2]) == (np.uint8, 3)
    height, width = plot().get_size_inches()[::-1] * plot().dpi
    assert found.shape[:2] == (round(height), round(width))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert (found == [0x0B, 0x67, 0xB8]).all(axis=2).any()
