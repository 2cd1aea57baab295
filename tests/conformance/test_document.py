"""docs/reliability/conformance.md lists every test of this folder, and no other."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs" / "reliability" / "conformance.md").read_text()


def defined():
    found = []
    for file in sorted(HERE.glob("test_*.py")):
        body = ast.parse(file.read_text()).body
        found += [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return found


def test_every_test_named_exists_and_every_test_is_named():
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))
    assert named == set(defined())
    assert len(defined()) == len(set(defined()))


def test_every_file_named_exists():
    for path in re.findall(r"`((?:tests|lit_mem)/[\w/.]+)`", DOCUMENT):
        assert (HERE.parents[1] / path).exists(), path


def test_the_count_stated_is_right():
    assert re.search(r"\*\*(\d+) tests\*\*", DOCUMENT).group(1) == str(len(defined()))
