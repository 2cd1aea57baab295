"""The content of a wheel and a source archive, and their metadata."""

import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import lit_mem

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def build(source, kind, out):
    """The file that `setuptools` makes of a folder: kind is wheel or sdist."""
    code = f"import sys, setuptools.build_meta as b; b.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (made,) = Path(out).glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return made


def copy_sources(to):
    """What a clean checkout has at the top, as far as it could come into a package."""
    to.mkdir()
    for pattern in ("*.toml", "*.py", "*.md", "*.in", "*.txt", "*.cff", "LICENSE"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, to)
    for name in ("lit_mem", "configs", "tests", "tools", "benchmarks"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel, opened."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(copy_sources(folder / "source"), "wheel", folder)) as opened:
        yield opened


def test_the_wheel_holds_assets_and_configurations_and_nothing_beside_the_package(wheel):
    names = set(wheel.namelist())
    assets = "lit_mem/assets/"
    assert {f"{assets}case_reports/{split}.jsonl" for split in ("train", "heldout", "test")} <= names
    assert {f"{assets}tiny_llama/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= names
    assert f"{assets}notes/notes.jsonl" in names
    configs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"lit_mem/{name}" for name in configs} == {name for name in names if name.startswith("lit_mem/configs/")}
    assert {"configs/quickstart.yaml", "configs/own_data.yaml", "configs/sweeps/runs/bundled.yaml"} <= configs
    assert {"lit_mem/py.typed", "lit_mem/__main__.py"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lit_mem"}
    for name in configs:
        assert wheel.read(f"lit_mem/{name}") == (ROOT / name).read_bytes()


def test_the_wheel_has_its_command_licence_and_metadata(wheel):
    info = f"lit_mem-{lit_mem.__version__}.dist-info"
    assert wheel.read(f"{info}/entry_points.txt").decode().split() == [
        "[console_scripts]", "lit-mem", "=", "lit_mem.cli.start:run",
    ]  # fmt: skip
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("Project-URL") == ["Paper, https://arxiv.org/abs/2507.21009"]


def test_the_citation_has_this_version_and_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (lit_mem.__version__, PROJECT["license"])
    assert [each["url"] for each in cited["references"]] == [PROJECT["urls"]["Paper"]]


def pins():
    """Name, normalized -> version, of `constraints.txt`."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in found.items()}


NOT_PINNED = {"lit_mem", "setuptools", "bitsandbytes"}  # this package, what the machine has, what needs a GPU


def test_the_pinned_versions_are_those_that_are_required():
    of_extras = [each for some in PROJECT["optional-dependencies"].values() for each in some]
    needed = [Requirement(each) for each in [*PROJECT["dependencies"], *of_extras]]
    found = {each: pins()[re.sub("[-_.]+", "-", each.name).lower()] for each in needed if each.name not in NOT_PINNED}
    assert {"torch", "trl", "ray", "opacus", "gguf"} <= {each.name for each in found}
    assert [f"{each.name} {version}" for each, version in found.items() if version not in each.specifier] == []
