"""Words with a precise term in the field do not come back: `metric` for a number, `package`, `prompted`, `except for`.

Checked are the prose of Python files (comments, docstrings, and strings with a space) and all of text files.
"""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKED = ["lit_mem", "configs", "docs", "examples", "README.md", "SECURITY.md", "CONTRIBUTING.md"]
SUFFIXES = {".py", ".md", ".yaml", ".html"}
GENERATED = {"docs/example_report.html", "docs/example_sweep.html"}

RULES = {
    "told": r"told",
    "asks, asked of software": r"ask(s|ed)",
    "figure for a number": r"figures?",
    "but for": r"but for",
    "is no": r"(?<!there )is no(?! longer| more| fewer| less| lower| better| proof| evidence)",
    "room": r"rooms?",
}
ALLOWED = [
    "asks the user",
    "user asks",
    "asks which",
    "asks what",
    "figure: matplotlib",
    "matplotlib figure",
    "matplotlib.figure",
]
"""Phrases in which one of the words is right."""

_FOUND = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in RULES.values()), re.IGNORECASE)
_KEPT = re.compile("|".join(map(re.escape, ALLOWED)))


def python_prose(source):
    """(line number, text) of each comment, and of each line of a docstring or a string with a space."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_string = token.type == tokenize.STRING or token.type == getattr(tokenize, "FSTRING_MIDDLE", None)
        if token.type == tokenize.COMMENT or (is_string and re.search(r"\s", token.string)):
            yield from enumerate(token.string.splitlines(), start=token.start[0])


def prose(path, text):
    if path.suffix == ".py":
        return python_prose(text)
    if path.suffix == ".html":  # without style sheets and tags, of which one is <figure>
        text = re.sub(r"<style>.*?</style>|<[^>]*>", lambda tag: "\n" * tag[0].count("\n"), text, flags=re.DOTALL)
    return enumerate(text.splitlines(), start=1)


def hits(path, text):
    for number, line in prose(path, text):
        if found := _FOUND.search(_KEPT.sub("", line)):
            yield f"{number}: {found[0]}: {line.strip()}"


def files():
    for name in CHECKED:
        root = ROOT / name
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            relative = path.relative_to(ROOT)
            if path.suffix in SUFFIXES and relative.as_posix() not in GENERATED:
                yield path


def test_words_with_a_precise_term_do_not_come_back():
    found = [f"{path.relative_to(ROOT)}:{hit}" for path in files() for hit in hits(path, path.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "the model is told the prefix",
        "the text that is asked for",
        "it asks for a token",
        "No other figure has them.",
        "the same but for case",
        "what is no number",
        "a room imports only rooms below",
    ],
)
def test_each_word_is_found_in_prose_and_not_in_code(line):
    assert len(list(hits(Path("a.md"), line))) == 1
    assert len(list(hits(Path("a.py"), f"x = 1  # {line}"))) == 1
    assert len(list(hits(Path("a.py"), f'def f():\n    """First.\n\n    {line}\n    """\n'))) == 1
    assert len(list(hits(Path("a.py"), f'print("{line}")'))) == 1


def test_names_and_right_uses_are_left_alone():
    source = 'import matplotlib.figure\n\nfigure, told = f(ask=1), {"figure": 0}  # there is no file; no longer there\n'
    assert list(hits(Path("a.py"), source)) == []
    assert list(hits(Path("a.md"), "a script that asks the user")) == []
    assert list(hits(Path("a.html"), "<style>\nfigure { color: red }\n</style><figure>a plot</figure>")) == []
