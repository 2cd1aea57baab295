"""Statements of SECURITY.md about the code, as far as they can be tested."""

import ast
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch
from packaging.specifiers import SpecifierSet
from safetensors import safe_open

import lit_mem
from lit_mem.attacks import ReferenceRatio
from lit_mem.callbacks import MembershipInference
from lit_mem.cli.main import main
from lit_mem.scoring.reference_store import batch_key
from lit_mem.scoring.scorer import scored_positions

ROOT = Path(lit_mem.__file__).parents[1]
QUICKSTART = ROOT / "tests" / "quickstart_plain.yaml"
FILES = sorted((ROOT / "lit_mem").rglob("*.py"))


@cache
def trees():
    """Syntax trees of the package by file."""
    return {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def calls(*names):
    """(where, call) of each call of a function or method with one of these names in the package."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(names):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def options(call):
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


def test_no_model_brings_code():
    found = dict(calls("from_pretrained", "from_config"))
    of_transformers = {at: call for at, call in found.items() if ast.unparse(call.func).startswith(("Auto", "auto."))}
    assert len(of_transformers) == 5
    for at, call in of_transformers.items():
        assert options(call).get("trust_remote_code") == "False", at
    source = (ROOT / "lit_mem" / "models" / "hub.py").read_text()
    assert 'more["use_safetensors"] = True' in source


def test_nothing_is_unpickled_or_evaluated():
    ((at, call),) = calls("torch.load")
    assert at.startswith("lit_mem/models/checkpoint_file.py:")
    assert options(call).get("weights_only") == "True"
    assert list(calls("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "os.system", "joblib.load")) == []
    plain = [at for at, call in calls("eval", "exec") if isinstance(call.func, ast.Name)]
    assert plain == []
    assert not [at for at, call in calls("load_dataset") if "trust_remote_code" in options(call)]


def test_one_file_opens_connections():
    using = {
        path.name
        for path in FILES
        if re.search(r"^\s*(import|from) (urllib|http|requests|socket)\b", path.read_text(), re.M)
    }
    assert using == {"cache.py"}


def test_the_malicious_releases_are_excluded_and_the_pins_installed_with():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (lightning,) = [entry for entry in project["dependencies"] if entry.startswith("lightning")]
    allowed = SpecifierSet(lightning.removeprefix("lightning"))
    assert "2.6.2" not in allowed
    assert "2.6.3" not in allowed
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    assert pins["lightning"] in allowed
    wanted = {re.split(r"[^\w-]", entry)[0] for entry in project["dependencies"]}
    assert wanted <= pins.keys()
    assert "pip install -c constraints.txt" in (ROOT / "README.md").read_text()


def test_versions_of_peft_that_import_what_an_adapter_names_are_excluded():
    """0.19.1 imports `megatron_core` in any case; 0.20.0 is the first version that checks its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entry,) = [entry for entry in project["dependencies"] if entry.startswith("peft")]
    allowed = SpecifierSet(entry.removeprefix("peft"))
    assert [version for version in ("0.18.1", "0.19.0", "0.19.1") if version in allowed] == []
    assert "0.21.0" in allowed


@pytest.mark.slow
def test_peft_reads_no_configuration_of_an_adapter_itself():
    """It would read all of it; `adapters.options` passes on only the allowed options."""
    assert list(calls("PeftConfig.from_pretrained", "get_peft_config")) == []
    for at, call in calls("PeftModel.from_pretrained"):
        assert options(call).get("config") == "config", at


def spelled(base, logprob, bos):
    """The text reconstructed from the log-probabilities of one example: at each position the token with that value."""
    ids = [bos]
    for value in logprob:
        with torch.no_grad():
            every = base(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        ids.append(int((every - value).abs().nan_to_num(torch.inf).argmin()))
    return ids


def test_reference_scores_on_disk_do_not_spell_the_texts(module, data, trainer, base):
    """Unencrypted they would, which is why they are encrypted."""
    tuned, corpus = module(), data()
    trainer([MembershipInference({"reference": ReferenceRatio()}, plots=False)]).validate(tuned, corpus, verbose=False)
    batch = next(iter(corpus.val_dataloader()[1]))
    ids, store = batch["input_ids"], tuned.reference_cache.store
    key = batch_key(ids, scored_positions(batch))
    logprob, _ = store.load(key, tuple(ids.shape))
    n = int(scored_positions(batch)[0].sum())
    assert n > 30
    truth = ids[0, : n + 1].tolist()
    assert spelled(base, logprob[0, 1 : n + 1], truth[0]) == truth
    path = store._path(key)
    with safe_open(path, "pt") as file:
        sealed = file.get_tensor("sealed")[: 4 * ids.numel()].view(torch.float32).view(ids.shape)
    guess = spelled(base, sealed[0, 1 : n + 1], truth[0])
    assert sum(a == b for a, b in zip(guess, truth, strict=True)) < n / 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


WATCHED = """
import json, sys
opened = []
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        opened.append([event, str(args[1:])])
sys.addaudithook(hook)
from lit_mem.cli.main import main
main(sys.argv[1:])
print("OPENED", json.dumps(opened))
"""


@pytest.mark.slow
def test_a_run_on_what_ships_opens_no_connection_and_leaves_the_home_folder_alone(tmp_path):
    """In its own process, without settings that keep the Hub's libraries offline."""
    places = {name: str(tmp_path / name) for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "TMPDIR", "LIT_MEM_CACHE")}
    for place in places.values():
        Path(place).mkdir()
    (tmp_path / "work").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS", "LANG") if name in os.environ}
    sizes = "--data.train_size 12 --data.heldout_size 12 --trainer.max_epochs 1"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "fit", "--config", str(QUICKSTART), *sizes.split()],
        cwd=tmp_path / "work", env=kept | places | {"MPLBACKEND": "agg", "MPLCONFIGDIR": places["TMPDIR"]},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout.splitlines()[-1].removeprefix("OPENED "))
    # matplotlib lists the available fonts when it first runs in a folder.
    assert [each for each in opened if each != ["subprocess.Popen", "fc-list"]] == []
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        assert [path for path in Path(places[name]).rglob("*") if path.is_file()] == []
    left = [path.name for path in Path(places["TMPDIR"]).rglob("*") if path.is_file()]
    assert [name for name in left if "fontlist" not in name and "matplotlib" not in name] == []


@pytest.mark.slow
def test_what_a_run_without_a_logger_writes_is_in_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callbacks = [{"class_path": f"lit_mem.callbacks.{name}"} for name in ("Perplexity", "MemorizationCheckpoint")]
    sizes = "--data.train_size 6 --data.heldout_size 6 --data.max_length 32 --data.check false --trainer.max_epochs 1"
    few = f"--trainer.logger false --trainer.accelerator cpu --trainer.enable_progress_bar false {sizes}"
    words = ["fit", "--model.model_id", "asset:tiny_llama", *few.split(), "--trainer.callbacks", json.dumps(callbacks)]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    main()
    (folder,) = (tmp_path / "logs" / "lit_mem").iterdir()
    section = (ROOT / "SECURITY.md").read_text().split("## What is written where")[1]
    said = re.search(r"without a logger \((checkpoints[^)]*)\)", section)[1]
    files = {path.name for path in folder.iterdir()}
    assert files == {"checkpoints", *re.findall(r"`([^`]+)`", said)}
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        rows |= dict.fromkeys(re.findall(r"version_<n>/(\S+)`", cells[0]), cells)
    for name in files - {"checkpoints"}:
        assert "checkpoints" in rows[name][-1] or (rows[name][-1] == "likewise" and name == "run.json")
    words = {
        "random_state": "random state", "random_states": "random state", "made_with": "made with",
        "learning": "losses before training", "members": "digest of each member",
    }  # fmt: skip
    plain = {"format", "base", "fingerprint", "schedule"}  # layout and options only
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["lit_mem"]
    assert content.keys() - plain == words.keys()
    assert [word for word in words.values() if word not in rows["checkpoints/last.ckpt"][2]] == []
