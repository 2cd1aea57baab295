"""Reports without drawing: that takes most of a report's time, and few tests look at a picture."""

import jinja2
import pytest
from matplotlib.figure import Figure

FRAME = '<svg viewBox="0 0 1 1"><g id="a"></g></svg>'


@pytest.fixture
def drawn():
    """Plots are drawn in a test that uses this, and in fixtures of a module; elsewhere each is an empty frame."""


@pytest.fixture(autouse=True)
def _frames(request, monkeypatch):
    save = Figure.savefig

    def frame(figure, file, *args, **options):
        if options.get("format") != "svg":
            return save(figure, file, *args, **options)
        return file.write(FRAME)

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", frame)


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once():
    made, kept = jinja2.Environment.compile, {}

    def once(environment, source, *args, **options):
        key = (source, *args, *options.items())
        if key not in kept:
            kept[key] = made(environment, source, *args, **options)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", once)
        yield
