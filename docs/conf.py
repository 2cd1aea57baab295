"""Sphinx configuration: `sphinx-build -W docs OUT`. Pages are Markdown; nothing is fetched, when built or when read."""

import re
import sys
from importlib import import_module
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

lit_mem, build_pages = import_module("lit_mem"), import_module("build_pages")  # of this checkout

project = "lit_mem"
copyright = "lit_mem developers"
version = release = lit_mem.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "plots"]
myst_heading_anchors = 4  # the same anchors as on GitHub, so that links work in both
smartquotes = False  # quotes and double hyphens are to be copied

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
default_role = "code"  # docstrings write `code`, as Markdown does
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Keys", "params_style")]
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "lit_mem"
html_copy_source = html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": True,
    # System fonts: no request leaves the page.
    "light_css_variables": {"color-brand-primary": "#0b5cad", "color-brand-content": "#0b5cad"},
    "dark_css_variables": {"color-brand-primary": "#6cb6ff", "color-brand-content": "#6cb6ff"},
}

_TICKS = re.compile(r"(``.+?``|`[^`]+`)")


def _escape(line: str) -> str:
    """A line of a docstring with what reStructuredText would take as markup escaped, except for code."""
    if line.lstrip().startswith((">>>", "...", ":", "..")) or not line.strip():
        return line
    parts = _TICKS.split(line)
    parts[::2] = [re.sub(r"(?<![:\\])([*|])|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
    for i in range(2, len(parts), 2):  # code ends where a word goes on: `Class`es
        if parts[i][:1].isalnum():
            parts[i] = "\\ " + parts[i]
    return "".join(parts)


def _with_lists_apart(lines: list[str]) -> list[str]:
    """The lines with an empty one before each list that follows a paragraph, as Markdown needs none."""
    made: list[str] = []
    for line in lines:
        before = made[-1] if made else ""
        starts = line.lstrip().startswith("- ") and before.strip() and not before.lstrip().startswith("- ")
        if starts and len(before) - len(before.lstrip()) <= len(line) - len(line.lstrip()):
            made.append("")
        made.append(line)
    return made


def _docstring(_app, _what, _name, _object, _options, lines: list[str]) -> None:
    lines[:] = [_escape(line) for line in _with_lists_apart(lines)]


def setup(app) -> None:
    """Generate contents, the API, options and logged names while pages are read."""
    app.connect("source-read", build_pages.source_read)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon writes its own markup
