"""What an installed copy holds."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_the_assets_and_nothing_beside_the_package(tmp_path):
    """`train.py` beside the package hides missing data files: the working folder is on the path."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("lit_mem", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(source.glob("*.whl"))).namelist())
    assets = "lit_mem/assets/"
    assert {f"{assets}case_reports/{split}.jsonl" for split in ("train", "heldout", "test")} <= names
    assert {f"{assets}tiny_llama/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= names
    assert {"lit_mem/py.typed", "lit_mem/configs/quickstart.yaml", "lit_mem/configs/sweeps/runs/bundled.yaml"} <= names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"lit_mem"}
