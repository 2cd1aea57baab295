"""Preparing texts writes nothing of them to disk: their rows and tokens are in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lit_mem

SCRIPT = """
import sys
from pathlib import Path

from lit_mem.data import minhash, checks
from lit_mem.data.canaries import Secrets
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources import TextFiles
from lit_mem.models.hub import load_tokenizer

written = []


def hook(event, args):
    if event == "open" and isinstance(args[0], str) and not args[0].startswith(("/dev/", "/proc/")):
        path, mode, flags = args
        if (mode and set(mode) & set("wax+")) or (mode is None and flags & 0o3):
            written.append(path)


tokenizer = load_tokenizer("asset:tiny_llama")
sys.addaudithook(hook)
for limit in (50_000, 0):
    checks.EXACT_UP_TO = limit
    for name in ("notes.jsonl", "notes.csv", "notes.parquet", "notes.txt"):
        found = prepare(TextFiles(name), tokenizer, DataOptions(canary_source=Secrets(4), train_size=20))
        assert len(found.train) >= 20 and found.test
print(*written)
"""


@pytest.mark.slow
def test_preparing_writes_no_file(tmp_path):
    import pandas as pd

    data, home = tmp_path / "data", tmp_path / "home"
    texts = [f"Patient {i} of the ward took lithium and had a rash." for i in range(40)]
    for folder in (data, home, home / "tmp"):
        folder.mkdir()
    rows = pd.DataFrame({"text": texts, "age": range(40), "tags": [["a", "b"]] * 40})
    rows.to_json(data / "notes.jsonl", orient="records", lines=True)
    rows[["text", "age"]].to_csv(data / "notes.csv", index=False)
    rows.to_parquet(data / "notes.parquet")
    (data / "notes.txt").write_text("\n".join(texts))
    before = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "LIT_MEM_CACHE")}
    env = os.environ | folders | {"TMPDIR": str(home / "tmp"), "PYTHONPATH": str(Path(lit_mem.__file__).parent.parent)}
    env.pop("HF_DATASETS_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=data, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == before
    left = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in left if b"lithium" in path.read_bytes()], json.dumps([str(path) for path in left])
