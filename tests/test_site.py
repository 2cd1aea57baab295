"""The site of documents: it builds without warnings, each link and anchor exists, nothing comes from a network."""

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from lit_mem.cli import sweep
from lit_mem.cli.commands import COMMANDS
from lit_mem.cli.main import main

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINKING = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
SOURCES = (".py", ".yaml", ".json", ".md")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def ids(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = [line.lstrip("# ") for line in BLOCK.sub("", page.read_text()).splitlines() if line.startswith("#")]
    slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {slug if not slugs[:i].count(slug) else f"{slug}-{slugs[:i].count(slug)}" for i, slug in enumerate(slugs)}


def links(page):
    """Relative links of a page, pictures included: path and anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text()))
    return [target.partition("#")[::2] for target in targets if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", LINKING, ids=ids(LINKING))
def test_each_link_and_anchor_exists(page):
    for path, anchor in links(page):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert ROOT in target.resolve().parents, path
        if anchor:
            generated = {command for command in COMMANDS if target.name == "options.md"}  # headings made by the build
            assert anchor in anchors(target) | generated, f"{path}#{anchor}"


def test_each_page_named_in_code_and_configurations_exists():
    folders = ("lit_mem", "configs", "tools", "benchmarks", "examples", "tests", ".github")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.*") if file.suffix in SOURCES]
    name = re.compile(r"(?<![\w/-])docs/[\w/]+\.md\b")
    named = {(file, page) for file in files for page in name.findall(file.read_text("utf-8"))}
    assert len(named) > 10
    assert sorted((file.name, page) for file, page in named if not (ROOT / page).is_file()) == []


def test_a_link_to_nowhere_is_seen(tmp_path):
    (tmp_path / "page.md").write_text("# A title\n\n[one](other.md) [two](#a-title) [three](#a-titel)\n")
    assert links(tmp_path / "page.md") == [("other.md", ""), ("", "a-title"), ("", "a-titel")]
    assert anchors(tmp_path / "page.md") == {"a-title"}


def test_the_index_has_every_page_once():
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#]+\.md)\)", (DOCS / "index.md").read_text(), re.MULTILINE)
    pages = {path.relative_to(DOCS).as_posix() for path in PAGES} - {"index.md"}
    assert (set(listed), len(listed)) == (pages, len(pages))


# -- blocks of code --------------------------------------------------------------------------------------------

CODE = [(path, language, block) for path in PAGES for language, block in BLOCK.findall(path.read_text())]
SHELL = [(path, block) for path, language, block in CODE if language == "bash"]


def test_every_block_says_what_it_is():
    assert {language for _, language, _ in CODE} <= {"bash", "python", "yaml", "text"}
    assert len(CODE) > 80


@pytest.mark.parametrize(("path", "block"), SHELL, ids=ids(path for path, _ in SHELL))
def test_a_block_is_proper_shell(path, block):
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def commands(block):
    """Words of each command of this package in a block of shell, after the program's name."""
    for line in block.replace("\\\n", " ").splitlines():
        line = re.split(r"\s#\s|\s[&|]{1,2}\s*|<<", line + " ")
        for part in line:
            words = shlex.split(part, comments=True) if part.count("'") % 2 == 0 and part.count('"') % 2 == 0 else []
            for i, word in enumerate(words):
                if word.endswith("train.py") or word == "lit-mem":
                    yield words[i + 1 :]
                    break


COMMAND_LINES = [(path, words) for path, block in SHELL for words in commands(block) if words]


@pytest.fixture(scope="module")
def known_options():
    """Options of each command, by their names in the parser."""
    sys.path.insert(0, str(DOCS))
    try:
        import build_pages
    finally:
        sys.path.remove(str(DOCS))
    fit = {word for action in build_pages._fit() for word in action.option_strings}
    found = dict.fromkeys(("fit", "validate", "test"), fit)
    for command, parser in build_pages._commands():
        found[command] = {word for action in parser._actions for word in action.option_strings}
    return found | {"doctor": {"-h"}}


def is_option(word, options):
    """Whether a word is an option, or one of the class that an option names (`--data.source.folder`)."""
    name = word.partition("=")[0].removesuffix("+")
    while name and name not in options:
        name = name.rpartition(".")[0]
    return bool(name)


def test_every_command_and_option_is_one_that_exists(known_options):
    assert len(COMMAND_LINES) > 30
    unknown = []
    for path, (command, *words) in COMMAND_LINES:
        if command not in known_options:
            unknown.append((path.name, command))
            continue
        options = [word for word in words if word.startswith("--")]
        unknown += [(path.name, word) for word in options if not is_option(word, known_options[command])]
    assert unknown == []


def test_a_wrong_option_is_seen(known_options):
    assert is_option("--data.source.folder", known_options["fit"])
    assert not is_option("--dat.source", known_options["fit"])
    assert not is_option("--fail_on", known_options["audit"])


def test_every_configuration_that_is_named_exists():
    for path, words in COMMAND_LINES:
        for option, value in pairwise(words):
            if option != "--config" or "/$" in value or value.startswith("$"):
                continue
            shipped = ROOT / "configs" / f"{value.removesuffix('.yaml')}.yaml"
            own = value in ("more.yaml", "sweep.yaml", "notes.yaml", "warning.yaml")  # files that a page shows or makes
            assert own or shipped.is_file() or (ROOT / value).is_file(), (path.name, value)


YAML = [(path, block) for path, language, block in CODE if language == "yaml"]
CONFIGURATIONS = [  # the others list callbacks, which tests/test_docs.py builds
    (path, block)
    for path, block in YAML
    if isinstance(content := yaml.safe_load(block), dict) and not {"trainer", "axes"} & content.keys()
]
SWEEPS = [block for _, block in YAML if "axes" in yaml.safe_load(block)]


@pytest.mark.parametrize(("path", "block"), CONFIGURATIONS, ids=ids(path for path, _ in CONFIGURATIONS))
def test_a_configuration_is_one_of_fit(path, block, tmp_path, monkeypatch, capsys):
    (tmp_path / "page.yaml").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "page.yaml", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert yaml.safe_load(block).keys() <= printed.keys()


def test_a_sweep_is_one_of_sweep(tmp_path, monkeypatch):
    assert SWEEPS
    monkeypatch.chdir(ROOT)
    for block in SWEEPS:
        (tmp_path / "sweep.yaml").write_text(block)
        assert sweep.parser().parse_args(["--config", str(tmp_path / "sweep.yaml")]).axes.keys()


# -- the site --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page of HTML loads, where it leads, and its anchors."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.leads, self.ids = [], [], set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found["id"]} if "id" in found else set()
        if tag in ("script", "img", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("href"):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.leads.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("sphinx", reason="extra docs")
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(out / "trees"),
        str(DOCS),
        str(out),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_reads_without_a_network(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html") if "_downloads" not in path.parts}
    assert len(pages) > len(PAGES)
    for path, page in pages.items():
        for target in set(page.loads) - {"#"}:
            assert not re.match(r"([a-z]+:)?//", target), (path.name, target)
            assert (path.parent / target.partition("?")[0]).exists(), (path.name, target)
        for target in page.leads:
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            other = (path.parent / file).resolve() if file else path
            assert other.exists(), (path.name, target)
            if anchor and other in pages:
                assert anchor in pages[other].ids, (path.name, target)
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", styles)


@pytest.mark.slow
def test_what_is_generated_is_there(site):
    options = (site / "reference" / "options.html").read_text("utf-8")
    assert all(word in options for word in ("--model.privacy", "--data.chunk", "--fail-on", "goldfish_k"))
    names = (site / "reference" / "names.html").read_text("utf-8")
    assert all(word in names for word in ("mia/strongest_auroc", "canary/exposure_mean", "leak/texts_hit"))
    attacks = (site / "reference" / "api" / "attacks.html").read_text("utf-8")
    assert 'id="lit_mem.attacks.OfflineLiRA"' in attacks
    assert "Reporting a vulnerability" in (site / "reliability" / "security.html").read_text("utf-8")
