"""The pictures and example pages of docs/, by the script that makes them."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

from lit_mem.report.page import script_hash

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES, PICTURES = ("example_report.html", "example_sweep.html"), ("localize.png", "localize_example.png")


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def script():
    return loaded(ROOT / "docs" / "pictures.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made, folder = loaded(ROOT / "tests" / "report" / "made.py"), tmp_path_factory.mktemp("runs")
    return made.write_run(folder / "run"), made.write_sweep(folder / "sweep")


def test_every_picture_is_written_from_a_run_and_a_sweep(script, runs, tmp_path, capsys):
    run, sweep = runs
    for name in ("localize.png", "localize_example_7.png", "localize_example_3.png"):
        Image.new("RGB", (int(name[-5]) if name[-5].isdigit() else 5, 4), "red").save(run / name)
    assert script.main([str(run), str(sweep), "--folder", str(tmp_path / "docs")]) == 0
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {"tensorboard.png", *PAGES, *PICTURES}
    with Image.open(tmp_path / "docs" / "localize_example.png") as picture:
        assert (picture.size, picture.convert("RGB").getpixel((0, 0))) == ((3, 4), (255, 0, 0))
    for name, words in zip(PAGES, ("of a fine-tuning run", "of a sweep"), strict=True):
        assert f"Memorization report {words}" in (tmp_path / "docs" / name).read_text()
    assert not (run / "report.html").exists()
    capsys.readouterr()


def test_a_run_that_was_not_localized_is_an_error(script, runs, tmp_path, capsys):
    run, sweep = runs
    for path in run.glob("localize*.png"):
        path.unlink()
    assert script.main([str(run), str(sweep), "--folder", str(tmp_path)]) == 1
    assert "localize.png, localize_example_*.png" in capsys.readouterr().err


@pytest.mark.parametrize("name", PAGES)
def test_the_example_pages_are_light_interactive_and_name_no_machine(name):
    text = (ROOT / "docs" / name).read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script_hash(script) in text[: text.index("<title>")]
    assert text.count("<figure") == text.count('<script type="application/json">') >= 4
    assert len(text.encode()) < 500_000
    assert not re.search(r"/(root|home|tmp|work|Users)/", text)


@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_are_light(name):
    path = ROOT / "docs" / name
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    assert path.stat().st_size < 200_000
