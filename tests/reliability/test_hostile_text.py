"""Column values, span kinds and file names that contain markup, escape sequences or worse, and where they are shown.

They appear in metric names, plots, TensorBoard's Markdown, a CSV file and on the console; in each they must be shown
literally.
"""

import csv
import html.parser
import io
import json
import logging
import re
import sys
import warnings
from pathlib import Path

import markdown
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from lit_mem.audit.measures.spans import _tags
from lit_mem.cli.main import main
from lit_mem.functional.groups import safe_names
from lit_mem.functional.plain_text import markdown_table, printable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of a sanitizer bundled with TensorBoard
    from tensorboard.plugin_util import markdown_to_safe_html

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("error:Glyph"),  # fonts must have all characters, or warnings flood the console
]

QUICKSTART = str(Path(__file__).parents[2] / "tests" / "quickstart_plain.yaml")
FAST = settings(max_examples=100, deadline=None, derandomize=True)
JOINERS = "\u200c\u200d"
MARKUP = "<script>alert(1)</script>"
FILE = "](javascript:alert(1))|<img src=x onerror=alert(2)>\x1b[31m\u202e`*_#\n![x](http:evil).jsonl"
VALUES = {
    MARKUP: ("<img src=x onerror=alert(1)>", "</td><h1>"),
    "a](javascript:alert(1))": ("[x](javascript:alert(1))", "![x](http://example.org/x.png)"),
    "\x1b[31mred": ("\x1b]0;title\x07\x1b[2J", "\x9b31m\x08\x08\r"),
    "../../up": ("../../../etc/passwd", "a/b/c"),
    "turned\u202e": ("\u202eevil\u2066", "\u200b\ufeff\u2028"),
    "x" * 5000: ("y" * 5000, "z" * 5000),
    "\U0001f600 \u6f22\u5b57": ("\u0645\u0631\u06cc\u0636\u200c\u0647\u0627", "\U0001f468\u200d\u2695\ufe0f"),
    "=cmd()": ("=1+1", "@SUM(A1)"),
    "$\\frac": ("$\\frac{1}{0}$", "$_^{"),
    "%s {0}": ("%s %d %(x)s", "{0} {x!r}"),
    "line\nbreak": ("a\nb\ttab", "a\x00b"),
}
KINDS = ("<b>name</b>", "\x1b[1mdate", "heldout", "base", "a/../b", "k" * 3000)


def row(i, who):
    text = f"The {who} of case {i} had a fever for {i + 2} days, and then took {i + 3} tablets of the drug."
    spans = [{"type": kind, "start": 4 + k, "end": 12 + k} for k, kind in enumerate(KINDS)]
    return {"text": text, "spans": spans} | {column: pair[i % 2] for column, pair in VALUES.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on such data: (folder, its logs, console, texts in plots)."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, who in ((FILE, "patient"), ("heldout.jsonl", "nurse")):
        (folder / name).write_text("".join(json.dumps(row(i, who)) + "\n" for i in range(12)))
    ours, few = "lit_mem.callbacks.", {"attacks": ["reference"], "measures": ["span_rate"]}  # of each subgroup
    callbacks = [{"class_path": ours + name} for name in ("Perplexity", "MembershipInference", "SpanExtraction")]
    callbacks += [
        {"class_path": ours + "Movers", "init_args": {"console": True}},
        {"class_path": ours + "Slices", "init_args": {"min_size": 2, "max_groups": 20} | few},
    ]
    drawn, tags, out, err = [], set(), io.StringIO(), io.StringIO()
    add_figure = SummaryWriter.add_figure

    def spy(self, tag, figure, *args, **kwargs):
        drawn.extend(figure.findobj(lambda artist: hasattr(artist, "get_parse_math")))
        if tag not in tags:  # drawing is slow; plots of the next validation have the same labels
            tags.add(tag)
            add_figure(self, tag, figure, *args, **kwargs)

    log = logging.getLogger("lit_mem")
    before = list(log.handlers), log.propagate, log.level
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py"])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setattr(SummaryWriter, "add_figure", spy)
        log.handlers = []
        source = ["--data.source", "lit_mem.data.sources.TextFiles", "--data.source.train", FILE]
        sizes = "--data.source.heldout heldout.jsonl --data.train_size null --data.heldout_size null"
        callback_list = f"--trainer.callbacks={json.dumps(callbacks)}"
        sizes += " --trainer.max_epochs 1 --memorization.log all"
        main(["fit", "--config", QUICKSTART, *source, *sizes.split(), callback_list])
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])
    return folder, folder / "logs" / "quickstart" / "version_0", out.getvalue() + err.getvalue(), drawn


def shows(text):
    return all(c.isprintable() or c in JOINERS for c in text)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_metric_names_are_letters_and_digits(run):
    events = [event for path in run[1].glob("events*") for event in EventFileLoader(str(path)).Load()]
    tags = {value.tag for event in events for value in event.summary.value}
    of_slices = {tag for tag in tags if tag.startswith("slice/") and tag.endswith("/reference_auroc")}
    of_kinds = {tag for tag in tags if re.fullmatch(r"extraction/span_rate_.*(?<!base)(?<!heldout)", tag)}
    assert len({tag.split("/")[1] for tag in of_slices}) >= len(VALUES)
    assert len(of_kinds) == len(KINDS)
    for tag in tags:
        assert re.fullmatch(r"[\w.-]+(/[\w.-]+)*", tag), tag
        assert all(len(level) < 80 and level not in (".", "..") for level in tag.split("/")), tag


@pytest.mark.slow
def test_the_csv_file_holds_names_and_numbers(run):
    with open(run[1] / "metrics.csv", newline="") as file:
        header, *rows = list(csv.reader(file))
    assert len(header) > 100
    assert all(re.fullmatch(r"[\w./-]+", name) for name in header)
    for cell in (cell for cells in rows for cell in cells if cell):
        float(cell)


@pytest.mark.slow
def test_the_console_shows_what_it_is_given(run):
    console = run[2]
    assert "Most exposed" in console or "No slice stands out" in console
    assert "Moved most since the last validation" in console
    assert "Sensitive spans of the members" in console
    for piece in ("\\x1b[31m", "\\u202e", "<img src=x onerror="):
        assert piece in console
    assert [line for line in console.split("\n") if not shows(line)] == []
    assert max(map(len, console.split("\n"))) < 5000


@pytest.mark.slow
def test_labels_in_pictures_show_and_are_no_mathematics(run):
    texts = {artist.get_text(): artist for artist in run[3]}
    assert any("\\x1b" in text for text in texts)
    formulas = [artist for text, artist in texts.items() if "$" in text and "mathdefault" not in text]  # from the data
    assert formulas
    assert not any(artist.get_parse_math() for artist in formulas)
    for text in texts:
        assert all(map(shows, text.split("\n")))
        assert len(text) < 200


@pytest.mark.slow
def test_the_table_of_movers_is_a_table_and_nothing_else(run):
    board = EventAccumulator(str(run[1]))
    board.Reload()
    (event,) = board.Tensors("memorization/moved_most/text_summary")
    source = event.tensor_proto.string_val[0].decode()
    cells = table_of(markdown_to_safe_html(source))
    assert cells == table_of(plain_html(source))  # nothing left for TensorBoard to sanitize
    assert cells[:2] == ["member", "mia/reference"]
    assert len(cells) == 2 + 2 * 5
    for origin in cells[2::2]:
        assert origin.startswith(printable(FILE)[:40])


@pytest.mark.slow
def test_the_configuration_names_the_file_as_it_is(run):
    kept = yaml.safe_load((run[1] / "config.yaml").read_text())
    assert kept["data"]["source"]["init_args"]["train"] == FILE


@pytest.mark.slow
def test_nothing_is_written_elsewhere(run):
    folder = run[0]
    assert {path.name for path in folder.iterdir()} == {FILE, "heldout.jsonl", "logs"}
    assert {path.name for path in folder.parent.iterdir() if path.name in ("etc", "up")} == set()


class Table(html.parser.HTMLParser):
    """The cells of a page, which must contain only a table."""

    def __init__(self):
        super().__init__()
        self.cells = []

    def handle_starttag(self, tag, attributes):
        assert tag in ("table", "thead", "tbody", "tr", "th", "td")
        assert not attributes
        if tag in ("th", "td"):
            self.cells.append("")

    def handle_data(self, data):
        if self.cells and data.strip():
            self.cells[-1] += data

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def table_of(page):
    table = Table()
    table.feed(page)
    table.close()
    return [cell.strip() for cell in table.cells]


def plain_html(source):
    """As rendered by TensorBoard, before sanitizing."""
    return markdown.Markdown(extensions=["markdown.extensions.tables", "markdown.extensions.fenced_code"]).convert(
        source
    )


SIGNS = st.text(
    st.sampled_from("ab \\`*_{}[]()#+-.!|<>&~$^:/\"'=;\n\t\x1b\x00\u202e\u200d1") | st.characters(), max_size=20
)


@pytest.mark.slow
@FAST
@given(rows=st.lists(st.tuples(SIGNS, SIGNS), min_size=1, max_size=3))
def test_any_text_is_itself_in_a_table(rows):
    source = markdown_table(("one", "other"), rows)
    for page in (plain_html(source), markdown_to_safe_html(source)):
        assert table_of(page) == ["one", "other", *(printable(cell) for cells in rows for cell in cells)]


@FAST
@given(text=SIGNS | st.text(), longest=st.none() | st.integers(1, 10))
def test_any_text_shows_on_one_line(text, longest):
    line = printable(text, longest)
    assert shows(line)
    assert longest is None or len(line) <= longest
    assert printable(line, longest) == line
    assert longest is not None or line.replace(" ", "") == "".join(
        c if c.isprintable() or c in JOINERS else ascii(c)[1:-1] for c in "".join(text.split())
    )
    line.encode()


@FAST
@given(
    kinds=st.lists(SIGNS | st.sampled_from(["heldout", "base", "x", "x_base", "x_base_heldout", *KINDS]), unique=True)
)
def test_no_kind_of_span_takes_the_name_of_another_metric(kinds):
    tags = _tags(kinds)
    names = [f"span_rate{part}" for part in ("", "_heldout", "_base", "_base_heldout")]
    names += [f"span_rate_{tags[kind]}{part}" for kind in kinds for part in ("", "_heldout", "_base", "_base_heldout")]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_a_rejected_name_is_given_to_no_kind():
    names = safe_names(["base", "a b", "other"], lambda name: name in ("base", "a_b"))
    assert names["other"] == "other"
    assert len({*names.values(), "base", "a_b"}) == 5
