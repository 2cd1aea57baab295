"""Imports go one way: each subpackage imports only from the layers below it (DESIGN.md)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lit_mem

ROOT = Path(lit_mem.__file__).parent

# Packages by layer, lowest first. Packages of one layer do not import each other.
FLOORS = [
    ["errors", "guards", "program"],
    ["types", "files", "functional", "assets"],
    ["training", "generation", "plots"],
    ["scoring"],
    ["adapters"],
    ["sharding"],
    ["models"],
    ["data"],
    ["attacks", "extraction", "privacy"],
    ["audit"],
    ["lightning", "hf", "report"],
    ["sweep", "localize"],
    ["cli", "callbacks"],
    ["__main__"],
]
FLOOR = {package: floor for floor, packages in enumerate(FLOORS) for package in packages}
# Packages below this one run without a trainer: none of them may import one.
TRAINERLESS = FLOOR["lightning"]


def modules(root):
    """Name below lit_mem -> file; a package's own file is `package.__init__`."""
    return {".".join(path.relative_to(root).with_suffix("").parts): path for path in sorted(root.rglob("*.py"))}


def within(name, entry):
    return name == entry or name.startswith(entry + ".")


def imports(name, source, known):
    """(line, name below lit_mem) of all that a file imports of lit_mem, wherever in the file.

    With a module its packages are imported too: `a.b.c` also runs `a/__init__.py` and `a/b/__init__.py`.
    """
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
            if within(target, "lit_mem") and (found := module_in(target.removeprefix("lit_mem").lstrip("."), known)):
                yield node.lineno, found


def module_in(target, known):
    """The module that an imported name is or is defined in, as `a.b` or `a.b.__init__`; None for lit_mem itself."""
    while target and target not in known and f"{target}.__init__" not in known:
        target = target.rpartition(".")[0]
    return target or None


def package(name):
    return name.partition(".")[0]


def broken_rules(name, source, known):
    mine = package(name)
    for line, target in imports(name, source, known):
        theirs = package(target)
        where = f"lit_mem/{name.replace('.', '/')}.py:{line} imports lit_mem.{target}"
        if theirs not in FLOOR:
            yield f"{where}: {theirs} is on no floor of tests/test_layers.py"
        elif theirs != mine and FLOOR[theirs] >= FLOOR[mine]:
            yield f"{where}: {mine} is on floor {FLOOR[mine]}, {theirs} on floor {FLOOR[theirs]}; expected a lower one"


KNOWN = modules(ROOT)


@pytest.mark.parametrize("name", sorted({package(name) for name in KNOWN} - {"__init__"}))
def test_a_package_imports_only_what_is_below_it(name):
    assert name in FLOOR, f"lit_mem/{name} is on no floor: add it to FLOORS in {__file__}"
    files = {module: path for module, path in KNOWN.items() if package(module) == name}
    broken = [rule for module, path in files.items() for rule in broken_rules(module, path.read_text("utf-8"), KNOWN)]
    assert not broken, "\n".join(broken)


def test_every_package_of_the_table_exists():
    assert set(FLOOR) == {package(name) for name in KNOWN} - {"__init__"}


@pytest.mark.slow
def test_no_package_below_the_trainers_loads_one():
    names = [name.removesuffix(".__init__") for name in KNOWN if FLOOR.get(package(name), TRAINERLESS) < TRAINERLESS]
    script = "import importlib, sys\nfor n in sys.argv[1:]: importlib.import_module(n)\nprint(*sys.modules)"
    command = [sys.executable, "-c", script, *(f"lit_mem.{name}" for name in names)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert {f"lit_mem.{name}" for name in names} <= loaded
    assert not {"lightning", "torchmetrics"} & {name.partition(".")[0] for name in loaded}
    assert not {"transformers.trainer", "lit_mem.lightning"} & loaded


@pytest.mark.parametrize(
    ("name", "source", "imported"),
    [
        ("scoring.scorer", "from lit_mem.audit.measure import Measure", "audit.measure"),
        ("scoring.scorer", "import lit_mem.cli", "cli"),
        ("scoring.scorer", "from lit_mem import lightning", "lightning"),
        ("scoring.scorer", "def f():\n    from lit_mem.cli import main", "cli.main"),
        ("scoring.scorer", "from .. import cli", "cli"),
        ("attacks.loss", "from ..lightning import module", "lightning.module"),
        ("attacks.__init__", "from ..lightning.module import CausalLM", "lightning.module"),
        ("types", "from lit_mem.functional.auroc import auroc", "functional.auroc"),
        ("audit.table", "if TYPE_CHECKING:\n    from lit_mem.report import page", "report.page"),
        ("report.page", "from lit_mem.lightning.module import CausalLM", "lightning.module"),
    ],
)
def test_a_wrong_import_is_found(name, source, imported):
    (rule,) = broken_rules(name, source, KNOWN)
    assert f"imports lit_mem.{imported}: {package(name)} is on floor" in rule


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("lightning.module", "from lit_mem.audit.table import ExampleTable"),
        ("audit.measures.membership", "from lit_mem.plots.roc import roc_plot"),
        ("attacks.loss", "from lit_mem.attacks.base import Attack\nfrom lit_mem.types import TokenScores"),
        ("scoring.scorer", "import torch\nfrom lit_mem_other.cli import x\nfrom lit_mem import __version__"),
    ],
)
def test_a_right_import_is_let_be(name, source):
    assert not list(broken_rules(name, source, KNOWN))


def imported_first(name, source, known):
    """Modules of lit_mem that a module imports as it is imported itself: not in a function, nor for types only."""
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for _, target in imports(name, ast.unparse(tree), known):
        yield target if target in known else f"{target}.__init__"


def circle_in(needs):
    """Names that need each other, the first one again at the end; [] where there are none."""
    done = set()

    def visit(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in needs.get(name, ()):
                if found := visit(other, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in needs if (found := visit(name, []))), [])


def test_modules_do_not_import_each_other_in_a_circle():
    needs = {name: {*imported_first(name, path.read_text("utf-8"), KNOWN)} - {name} for name, path in KNOWN.items()}
    assert needs["cli.main"] >= {"cli.trainer_cli", "cli.console"}
    assert circle_in(needs) == []


def test_a_circle_is_found():
    assert circle_in({"a": ["b", "d"], "b": ["c"], "c": ["b"], "d": []}) == ["b", "c", "b"]
    assert circle_in({"a": ["b", "c"], "b": ["c"], "c": []}) == []


LINES, CLASS_LINES = 300, 200


def too_long(name, source):
    """The parts of a module that exceed the size limits."""
    if (lines := len(source.splitlines())) > LINES:
        yield f"{name}: {lines} lines; expected at most {LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and (lines := node.end_lineno - node.lineno + 1) > CLASS_LINES:
            yield f"{name}: class {node.name} has {lines} lines; expected at most {CLASS_LINES}"


def test_files_and_classes_are_small():
    assert not [found for name, path in KNOWN.items() for found in too_long(name, path.read_text("utf-8"))]


def test_long_files_and_classes_are_found():
    assert list(too_long("a", "x = 1\n" * LINES)) == []
    assert list(too_long("a", "x = 1\n" * (LINES + 1))) == ["a: 301 lines; expected at most 300"]
    source = "class A:\n" + "    x = 1\n" * CLASS_LINES
    assert list(too_long("a", source)) == ["a: class A has 201 lines; expected at most 200"]
