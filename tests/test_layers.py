"""Imports go one way: each file may import only what stands in its own layer or in an earlier one (DESIGN.md)."""

import ast
from pathlib import Path

import pytest

import lit_mem

ROOT = Path(lit_mem.__file__).parent

# A name stands for the module and for all in it; the longest name that fits decides.
LAYERS = {
    1: ["types", "errors", "guards", "atomic", "file_modes", "files", "run_folder", "untrusted"],
    2: [
        "functional",
        "scoring",
        "training_loss",
        "reference",
        "reference_store",
        "adapters",
        "data",
        "assets",
        "checkpoints",
        "console",
        "divergence",
        "finite",
        "foreign_callbacks",
        "losses",
        "models",
        "sharding",
        "audit.gather",
        "audit.table",
    ],
    3: [
        "audit",
        "metrics",
        "attacks",
        "extraction",
        "privacy",
        "data.__init__",
        "data.checks_file",
        "data.datamodule",
        "data.member_check",
        "data.resuming",
        "data.canaries.__init__",
        "data.canaries.traps",
        "plots",
    ],
    4: ["callbacks", "lightning", "module", "report", "stopping"],
    5: [
        "cli",
        "csv_logger",
        "parsing",
        "privacy.command",
        "runs",
        "report.command",
        "sweep",
        "where",
    ],
}
# Beside the layers: callbacks see a module only through `types.MemorizationModule`.
NEVER = [("callbacks", "module"), ("callbacks", "data.datamodule")]


def layer_of(name):
    """Layer of `a.b` below lit_mem, or None if the table does not say."""
    fits = [(len(entry), layer) for layer, entries in LAYERS.items() for entry in entries if within(name, entry)]
    return max(fits)[1] if fits else None


def within(name, entry):
    return name == entry or name.startswith(entry + ".")


def modules(root):
    """Name below lit_mem -> file; a package's own file is `package.__init__`."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}


def imports(name, source, known):
    """(line, name below lit_mem) of everything of lit_mem that a file imports, wherever in the file."""
    package = ["lit_mem", *name.split(".")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            if within(target, "lit_mem"):
                yield node.lineno, module_in(target.removeprefix("lit_mem").lstrip("."), known)


def module_in(target, known):
    """The module that an imported name is, or that it stands in."""
    while target and target not in known:
        if f"{target}.__init__" in known:
            return f"{target}.__init__"
        target = target.rpartition(".")[0]
    return target or "__init__"


def broken_rules(name, source, known):
    mine = layer_of(name)
    for line, target in imports(name, source, known):
        where = f"lit_mem/{name.replace('.', '/')}.py:{line} imports lit_mem.{target}"
        theirs = layer_of(target)
        if target == "__init__":
            continue  # lit_mem itself: the version
        if theirs is None:
            yield f"{where}, which stands in no layer of tests/test_layers.py"
        elif theirs > mine:
            yield f"{where}: layer {mine} ({', '.join(LAYERS[mine])}) may not import layer {theirs}"
        for importer, imported in NEVER:
            if within(name, importer) and within(target, imported):
                yield f"{where}: {importer} may never import {imported}"


KNOWN = modules(ROOT)
RULED = sorted(name for name in KNOWN if name not in ("__init__", "__main__"))


@pytest.mark.parametrize("name", RULED)
def test_imports_go_one_way(name):
    assert layer_of(name) is not None, f"lit_mem.{name} stands in no layer: add it to LAYERS in {__file__}"
    broken = list(broken_rules(name, KNOWN[name].read_text("utf-8"), KNOWN))
    assert not broken, "\n".join(broken)


def test_every_entry_of_the_table_is_a_module_or_is_planned():
    planned = {"privacy"}
    names = {entry for entries in LAYERS.values() for entry in entries} | {entry for pair in NEVER for entry in pair}
    assert {entry for entry in names if not any(within(name, entry) for name in KNOWN)} <= planned


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        (
            "scoring",
            "from lit_mem.callbacks.base import Measure",
            "scoring.py:1 imports lit_mem.callbacks.base: layer 2",
        ),
        ("scoring", "import lit_mem.module", "imports lit_mem.module: layer 2"),
        ("scoring", "from lit_mem import module", "imports lit_mem.module: layer 2"),
        ("scoring", "def f():\n    from lit_mem import cli", "scoring.py:2 imports lit_mem.cli"),
        ("scoring", "from . import cli", "imports lit_mem.cli"),
        ("scoring", "from .attacks.loss import Loss", "imports lit_mem.attacks.loss"),
        ("attacks.loss", "from ..callbacks import base", "attacks/loss.py:1 imports lit_mem.callbacks.base"),
        ("attacks.__init__", "from ..callbacks.base import Measure", "imports lit_mem.callbacks.base"),
        (
            "types",
            "from lit_mem.functional.auroc import auroc",
            "layer 1 (types, errors, guards, atomic, file_modes, files, run_folder, untrusted) may not import layer 2",
        ),
        ("data.encoding", "from lit_mem.data.datamodule import X", "imports lit_mem.data.datamodule"),
        ("data.encoding", "from lit_mem.data import TextDataModule", "imports lit_mem.data.__init__"),
        ("data.prepare", "from lit_mem.data.datamodule import X", "imports lit_mem.data.datamodule: layer 2"),
        ("data.loaders", "from lit_mem.data.resuming import X", "imports lit_mem.data.resuming: layer 2"),
        ("callbacks.base", "from lit_mem.module import CausalLM", "callbacks may never import module"),
        ("callbacks.base", "import lit_mem.cli", "imports lit_mem.cli: layer 4"),
        ("callbacks.base", "if TYPE_CHECKING:\n    from lit_mem.module import X", "callbacks may never import module"),
        ("callbacks.base", "from lit_mem.data.datamodule import X", "callbacks may never import data.datamodule"),
        ("audit.table", "from lit_mem.report import run", "imports lit_mem.report"),
    ],
)
def test_a_wrong_import_is_found(name, source, message):
    assert any(message in rule for rule in broken_rules(name, source, KNOWN))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("module", "from lit_mem.audit.table import ExampleTable"),
        ("callbacks.membership", "from lit_mem.plots.figures import roc_figure"),
        ("cli", "from lit_mem.module import CausalLM"),
        ("attacks.loss", "from lit_mem.attacks.base import Attack\nfrom lit_mem.types import TokenScores"),
        ("scoring", "import torch\nfrom lit_mem_other.cli import x\nfrom lit_mem import __version__"),
    ],
)
def test_a_right_import_is_let_be(name, source):
    assert not list(broken_rules(name, source, KNOWN))
