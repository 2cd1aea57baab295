"""The documents: their snippets can be configured, their names are logged, and nothing is missing."""

import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import norm
from torch.utils.tensorboard import SummaryWriter

import lit_mem.attacks
import lit_mem.callbacks
import lit_mem.extraction
from lit_mem.attacks import Attack, Loss
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Measure
from lit_mem.audit.measures.extraction import default_measures
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.audit.suite import suite
from lit_mem.callbacks import (
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    Movers,
    Perplexity,
    Slices,
    SpanExtraction,
    Stopwatch,
)
from lit_mem.data import TextDataModule
from lit_mem.errors import ConfigError
from lit_mem.extraction import ExtractionMeasure, ScoredMeasure
from lit_mem.functional.interval import clopper_pearson
from lit_mem.functional.roc import best_balanced_accuracy, tpr_at_fpr
from lit_mem.lightning import auditing
from lit_mem.lightning.auditing import per_example
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.loggers import log_plot
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.parser import OneLineParser

ROOT = Path(__file__).parent.parent
METRICS, README = ROOT / "docs" / "reference" / "metrics.md", ROOT / "README.md"
MEASURES = [METRICS, *sorted((ROOT / "docs" / "reference" / "metrics").glob("*.md"))]
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [path.relative_to(ROOT).as_posix() for path in PAGES]
ROOMS = ("mia", "extraction", "memorization", "correlation", "slice", "user", "canary", "audit")
ELSEWHERE = {"train/loss", "val/loss", "test/loss", "test/perplexity"}  # the module's own, and those of a test

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


def blocks(document, language):
    return [block for of, block in BLOCK.findall(document.read_text()) if of == language]


def in_measures(language):
    return [block for path in MEASURES for block in blocks(path, language)]


def lists_callbacks(block):
    """Whether a snippet is a list of callbacks, or a configuration that has one."""
    content = yaml.safe_load(block)
    return isinstance(content, list) or "trainer" in content


def text_of_measures():
    return "\n".join(path.read_text() for path in MEASURES)


YAML = [
    (path, i, block)
    for path in PAGES
    for i, block in enumerate(blocks(path, "yaml"))
    if lists_callbacks(block) and path.name != "adding.md"
]


@pytest.fixture(scope="module")
def parser():
    """The command line's parser, as far as a configuration file goes."""
    made = OneLineParser()
    made.add_argument("--seed_everything", type=bool | int, default=0)
    made.add_lightning_class_args(pl.Trainer, "trainer")
    made.add_lightning_class_args(CausalLM, "model")
    made.add_lightning_class_args(TextDataModule, "data")
    return made


def built(parser, block):
    """The callbacks that a snippet configures: entries of `trainer.callbacks`, or a whole configuration."""
    content = yaml.safe_load(block)
    if isinstance(content, list):
        content = {"trainer": {"callbacks": content}}
    return parser.instantiate_classes(parser.parse_string(yaml.safe_dump(content))).trainer.callbacks


@pytest.fixture
def my_package(monkeypatch):
    """A placeholder for a reader's own class."""
    made = types.ModuleType("my_package")
    made.MyAttack = type("MyAttack", (Loss,), {"__module__": "my_package"})
    monkeypatch.setitem(sys.modules, "my_package", made)


@pytest.mark.parametrize(("path", "number", "block"), YAML, ids=[f"{path.stem}-{i}" for path, i, _ in YAML])
def test_every_yaml_snippet_builds(path, number, block, parser, my_package):
    callbacks = built(parser, block)
    named = [item["class_path"] for item in _callbacks_in(yaml.safe_load(block))]
    assert [f"lit_mem.callbacks.{type(callback).__name__}" for callback in callbacks] == named
    assert named


def _callbacks_in(content):
    if isinstance(content, list):
        return content
    return [item for key, items in content["trainer"].items() if key.rstrip("+") == "callbacks" for item in items]


def test_a_wrong_snippet_is_seen(parser):
    with pytest.raises(ConfigError, match="did you mean fprs"):
        built(parser, "- class_path: lit_mem.callbacks.MembershipInference\n  init_args: {fprz: [0.1]}")


# -- names ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_with(module, data, trainer):
    """Makes a small run with every measure: its log folder, what it logged, and its per-example columns."""
    return lambda folder: _run(module, data, trainer, folder)


@pytest.fixture(scope="module")
def run(run_with, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # empty plots: to draw them takes longer than all else here
        patch.setattr(auditing, "log_plot", lambda t, name, draw: log_plot(t, name, lambda: Figure(figsize=(1, 1))))
        return run_with(tmp_path_factory.mktemp("documented"))


@pytest.fixture
def pictures(run_with, tmp_path):
    return run_with(tmp_path / "documented").folder


def _run(module, data, trainer, folder):
    callbacks = [
        Perplexity(),
        MembershipInference(),
        Extraction(n_members=4, n_heldout=4, prefix=[0.25, 0.75], group="sweep"),
        Extraction(n_members=4, n_heldout=4),
        Extractability(),
        SpanExtraction(),
        Correlation(),
        Movers(),
        Slices(columns=["sex"], min_size=2),
        Stopwatch(),
    ]
    logger = TensorBoardLogger(folder, name=None, version="")
    t = trainer(callbacks, max_epochs=1, num_sanity_val_steps=0, logger=logger)
    t.fit(module(dropout=0.0, targets=["all-linear"]), data(train_size=12, heldout_size=12))
    logged = set(t.callback_metrics).union(*(callback.names() for callback in callbacks))
    audit = trainer([MembershipInference(plots=False), Perplexity(), BaseModel()])
    audit.validate(module(), data(train_size=12, heldout_size=12), verbose=False)
    logged |= set(audit.callback_metrics)
    return SimpleNamespace(folder=folder, logged=logged, columns=set(per_example(t, t.lightning_module).columns))


@pytest.fixture(scope="module")
def known(run, parser):
    """Every name that can be logged, drawn or written per example: by that run, and by what the snippets configure."""
    names = run.logged | run.columns | ELSEWHERE
    configured = [MembershipInference(), Extraction(), Extractability(), SpanExtraction(), Movers(), Correlation()]
    for _, _, block in YAML:
        configured += built(parser, block)
    measures = [callback for callback in configured if isinstance(callback, Measure)]
    for measure in measures:
        names |= set(measure.names())
        if isinstance(measure, Extraction):
            names.add(f"{measure.group}/prefix_sweep")
    columns = run.columns | known_of(measures).columns
    names |= columns
    short = {column.partition("/")[2] for column in columns if column.startswith(("mia/", "extraction/"))}
    names |= {f"correlation/{p}_vs_{name}" for p in ("perplexity", "perplexity_base") for name in short}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder)).Reload()
    return names | set(events.Tags()["images"])


def is_known(name, known):
    """Whether a name of a document matches; `<this>` matches one level, `…` anything."""
    if name.startswith("slice/") and name.count("/") > 1:
        # Columns and values are the data's; what is logged of them is not.
        name = "/".join(["slice", "<column>", *["<value>"] * (name.count("/") - 2), name.rpartition("/")[2]])
    if name.startswith("extraction/span_rate_"):
        # So are the kinds of spans.
        name = re.sub(r"span_rate_(?!heldout|base)[a-z]+", "span_rate_<kind>", name)
    if name.startswith("canary/"):
        # So are numbers of repetitions, and ranges of perplexity.
        name = re.sub(r"_(x\d+|perplexity_\d+-\d+)(?=_low$|_high$|$)", "", name)
    parts = re.split(r"(<\w+>|…)", name)
    pattern = "".join({"<": r"[^/]+", "…": r".+"}.get(part[:1], re.escape(part)) for part in parts)
    return any(re.fullmatch(pattern, one) for one in known)


def named_in(document, namespaces):
    text = BLOCK.sub("", document.read_text())
    names = {code.split(" ")[0] for code in CODE.findall(text)}  # a threshold is a name and more
    names = {name for name in names if not name.endswith(("/", ".py"))}
    return {name for name in names if name.split("/")[0] in namespaces and "/" in name}


def test_many_names_are_found():
    assert sum(len(named_in(path, ROOMS)) for path in PAGES) > 200


@pytest.mark.parametrize("document", PAGES, ids=IDS)
def test_every_name_is_one_that_is_logged(document, known):
    names = named_in(document, (*ROOMS, "val", "train", "test", "time", "sweep"))
    assert sorted(name for name in names if not is_known(name, known)) == []


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("mia/reference_auroc", True),
        ("mia/<attack>_tpr_at_fpr_0.001", True),
        ("mia/…_auroc_low", True),
        ("mia/min_k++_auroc", False),
        ("mia/<attack>_auc", False),
        ("extraction/span_rate_drug_heldout", True),
        ("extraction/span_rates", False),
        ("extraction/discoverable_base", False),
        ("correlation/perplexity_vs_<measure>", True),
        ("correlation/perplexity_vs_luck", False),
        ("slice/length/1-20/reference_auroc_high", True),
        ("slice/length/1-20/reference_auroc_median", False),
        ("memorization/exposed", False),
        ("canary/exposure_mean_x16", True),
        ("canary/auroc_perplexity_1-10_low", True),
        ("canary/exposure_mean_y16", False),
        ("audit/epsilon", False),
    ],
)
def test_names_are_distinct(name, right, known):
    assert is_known(name, known) == right


def test_what_a_run_logs_is_documented(run):
    """Names of the default run, except those that differ only by attack, measure, kind or subgroup."""
    text = text_of_measures()
    logged = {name for name in run.logged if name.split("/")[0] in ("val", "memorization", "time")}
    assert len(logged) > 5
    assert sorted(name for name in logged if f"`{name}`" not in text and not name.endswith("_sweep")) == []
    stems = {name.rsplit("_auroc", 1)[0] for name in run.logged if name.startswith("mia/") and name.endswith("_auroc")}
    assert len(stems) > 5
    assert [stem for stem in stems if f"`{stem}_…`" not in text] == []
    scored = {name for name in run.logged if name.startswith("extraction/")}
    plain = {re.sub(r"(_base)?(_heldout)?(_low|_high)?$", "", name) for name in scored if "span_rate_" not in name}
    assert len(plain) > 5
    assert [name for name in plain if f"`{name}`" not in text] == []


# -- classes -------------------------------------------------------------------------------------------------


def classes_in(package, base):
    """Every class of a package that can be built."""
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found = {c for m in modules for c in vars(m).values() if inspect.isclass(c) and issubclass(c, base)}
    return {c for c in found if not inspect.isabstract(c) and c.__module__.startswith(package.__name__)}


DOCUMENTED = sorted(
    {
        *classes_in(lit_mem.attacks, Attack),
        *classes_in(lit_mem.extraction, ExtractionMeasure),
        *classes_in(lit_mem.extraction, ScoredMeasure),
        *(c for c in vars(lit_mem.callbacks).values() if inspect.isclass(c) and issubclass(c, Measure)),
    },
    key=lambda c: c.__name__,
)


def rows():
    """The table of all measures: class -> what its rows say, by heading."""
    lines = METRICS.read_text().split("## The table")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heading, _, *body = cells
    found = {}
    for row in body:
        assert len(row) == len(heading), row
        found.setdefault(row[1].strip("`"), []).append(dict(zip(heading, row, strict=True)))
    return found


def test_the_packages_are_found():
    names = {c.__name__ for c in DOCUMENTED}
    assert {"Loss", "OfflineLiRA", "NgramRate", "Discoverable", "Slices"} <= names
    assert "ProbingAttack" not in names


@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda c: c.__name__)
def test_every_class_is_documented(documented):
    """In the table and in a snippet, so that a new one without either fails here."""
    text, name = text_of_measures(), documented.__name__
    assert re.search(rf"`(lit_mem\.callbacks\.)?{name}`", text)
    if issubclass(documented, Measure):
        return
    assert name in rows()
    assert any(re.search(rf"\b{documented.__module__.rsplit('.', 1)[0]}\.{name}\b", b) for b in in_measures("yaml"))


def test_the_table_says_rightly_what_is_on():
    for path in (ROOT / "configs").glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["memorization"]["suite"] == "standard"
    on = {type(measure).__name__ for measure in suite("standard", extraction=ExtractionOptions())}
    for measures in (default_attacks(), default_measures(), Extractability().measures):
        on |= {type(measure).__name__ for measure in measures.values()}
    table = rows()
    assert {name for name, said in table.items() if all(row["default"] == "on" for row in said)} <= on
    assert {name for name, said in table.items() if any(row["default"] == "off" for row in said)}.isdisjoint(on)
    assert {row["default"] for said in table.values() for row in said} == {"on", "off"}
    for name, attack in default_attacks().items():
        assert f"`mia/{name}_…`" in [row["logged name"] for row in table[type(attack).__name__]]
    for name, measure in {**default_measures(), **Extractability().measures}.items():
        assert [row["logged name"] for row in table[type(measure).__name__]] == [f"`extraction/{name}`"]


def test_the_snippet_of_the_defaults_is_what_is_built_by_default(parser):
    """Where a snippet names all defaults with their options, these are the defaults."""
    first = next(b for b in in_measures("yaml") if "lit_mem.attacks.ReferenceRatio" in b)
    (shown,) = built(parser, first)
    assert {name: vars(attack) for name, attack in shown.attacks.items()} == {
        name: vars(attack) for name, attack in default_attacks().items()
    }
    (shown,) = built(parser, next(b for b in in_measures("yaml") if "lit_mem.extraction.RougeL" in b))
    for name, measure in default_measures().items():
        assert (type(shown.measures[name]), vars(shown.measures[name])) == (type(measure), vars(measure))
    (shown,) = built(parser, next(b for b in in_measures("yaml") if "lit_mem.extraction.ExactMemorization" in b))
    for name, measure in Extractability().measures.items():
        assert (type(shown.measures[name]), vars(shown.measures[name])) == (type(measure), vars(measure))


# -- numbers ------------------------------------------------------------------------------------------------


def said(pattern):
    """The numbers of the one sentence of the document that has this form."""
    (found,) = re.findall(pattern, " ".join(text_of_measures().split()))
    return [float(number) for number in found]


def draws(figure, n_members, n_others, shift, repeats=400):
    """(repeats,) a metric of normal scores, the members' raised by `shift`."""
    generator = torch.Generator().manual_seed(1)
    member = torch.arange(n_members + n_others) < n_members
    scores = torch.randn(repeats, len(member), generator=generator) + shift * member
    return torch.tensor([figure(score, member) for score in scores], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_simulated_numbers_can_be_had_again():
    mean, high = said(r"it is (0\.\d+) on average and above (0\.\d+) in one case of twenty")
    small_mean, small_high = said(r"with 100 and 100, (0\.\d+) and (0\.\d+) \(simulated\)")
    for n, expected, top in ((300, mean, high), (100, small_mean, small_high)):
        chance = draws(best_balanced_accuracy, n, n, shift=0)
        assert chance.mean().item() == pytest.approx(expected, abs=0.004)
        assert chance.quantile(0.95).item() == pytest.approx(top, abs=0.008)
    true, low, high = said(r"true TPR at 1 % is (0\.\d+) measures (0\.\d+) to (0\.\d+) in nine of ten draws")
    assert 1 - norm.cdf(norm.ppf(0.99) - 1) == pytest.approx(true, abs=0.005)
    measured = draws(lambda score, member: tpr_at_fpr(score, member, 0.01), 300, 300, shift=1)
    assert measured.quantile(0.05).item() == pytest.approx(low, abs=0.01)
    assert measured.quantile(0.95).item() == pytest.approx(high, abs=0.02)


def test_none_of_a_hundred_is_shown_with_its_bound():
    (percent,) = (float(x) for x in re.findall(r"0 of 100 texts leaves up to (\S+) %", text_of_measures()))
    assert 100 * clopper_pearson(0, 100)[1] == pytest.approx(percent, abs=0.05)


# -- links and pictures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_page_says_nothing_twice(page):
    """No paragraph, table or block of a line's length or more occurs twice in a page."""
    blocks = [block for block in page.read_text().split("\n\n") if len(block) > 100]
    assert [block for block in blocks if blocks.count(block) > 1] == []


@pytest.fixture(scope="module")
def exporter():
    spec = importlib.util.spec_from_file_location("export_plots", ROOT / "docs" / "export_plots.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_pictures_shown_are_those_that_are_exported(exporter):
    shown = re.findall(r"!\[[^\]]+\]\((?:\.\./)+plots/([^)]+)\)", text_of_measures())
    assert sorted(shown) == sorted(exporter.PICTURES)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_has_every_picture(pictures, exporter, tmp_path, capsys):
    assert exporter.main([str(pictures), "--folder", str(tmp_path / "plots")]) == 0
    for name in exporter.PICTURES:
        with Image.open(tmp_path / "plots" / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 100
    assert "mia/roc: " in capsys.readouterr().out


def test_the_last_plot_is_used_and_a_missing_one_is_reported(exporter, tmp_path, capsys):
    """More pictures than TensorBoard keeps by itself, over two event files as of a resumed run."""
    for first in (0, 10):
        with SummaryWriter(tmp_path, filename_suffix=f".{first}") as writer:
            for step in range(first, first + 10):
                writer.add_image("mia/roc", torch.full((3, 4, 5), step, dtype=torch.uint8), step)
    assert exporter.main([str(tmp_path), "--folder", str(tmp_path / "out")]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["roc.png"]
    with Image.open(io.BytesIO((tmp_path / "out" / "roc.png").read_bytes())) as picture:
        assert picture.size == (5, 4)
        assert picture.getpixel((0, 0)) == (19, 19, 19)
    assert "no picture mia/scores, correlation/scatter" in capsys.readouterr().err


def test_a_folder_without_events_is_rejected(exporter, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        exporter.main([str(tmp_path)])
    assert stop.value.code == 2
    assert "expected a run's log folder" in capsys.readouterr().err
