"""`lit-mem verify`: a file that was changed or is missing is found, and a hostile report is one line."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.cli import light
from lit_mem.cli import main as cli
from lit_mem.files.hashes import canonical_digest
from lit_mem.report import verify as verifying
from lit_mem.report.sealed import digest_of
from lit_mem.report.verify import verify

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)


@pytest.fixture
def run(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    made.write_adapter(folder, "best", 1)
    cli.main(["report", str(folder)])
    return folder


def code(*words):
    """Exit code of the command."""
    try:
        assert light.run_light(["verify", *map(str, words)])
    except SystemExit as stop:
        return stop.code
    return 0


def states(place, **options):
    return {one.path: one.state for one in verify(place / "report.json", **options)}


def edit(folder, change):
    """Rewrite the report with a digest that matches, as anyone who can write the file can do."""
    path = folder / "report.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data | {"digest": digest_of(data)}))


def test_a_fresh_report_is_the_same(run, capsys):
    capsys.readouterr()
    assert code(run / "report.json") == 0
    lines = capsys.readouterr().out.splitlines()
    data = json.loads((run / "report.json").read_text())
    named = ["report.json", *(one["path"] for one in [*data["documents"], *data["files"]])]
    assert lines == [f"same    {path}" for path in named]
    assert code(run) == 0  # the folder does as well
    assert {"annex.md", "report.html", "config.yaml", "metrics.csv", "checkpoints/best-adapter/lit_mem.json"} <= set(
        named
    )


@pytest.mark.parametrize(
    "name", ["config.yaml", "metrics.csv", "checkpoints/best-adapter/lit_mem.json", "annex.md", "report.html"]
)
@pytest.mark.parametrize("how", ["longer", "of the same length", "gone", "a folder"])
def test_what_was_done_to_a_file_is_found(name, how, run, capsys):
    path = run / name
    content = path.read_bytes()
    if how == "longer":
        path.write_bytes(content + b" ")
    elif how == "of the same length":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.unlink()
        if how == "a folder":
            path.mkdir()
    expected = "missing" if how in ("gone", "a folder") else "changed"
    capsys.readouterr()
    assert code(run) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("same ")] == [f"{expected:<8}{name}"]


def test_a_number_that_was_changed_in_the_report_is_found(run):
    path = run / "report.json"
    path.write_text(path.read_text().replace("0.6512", "0.5512", 1))
    assert states(run)["report.json"] == "changed"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_that_was_changed_is_found(run, data):
    path = run / "report.json"
    before = path.read_text()
    content = json.loads(before)
    place, key = content, data.draw(st.sampled_from(sorted(set(content) - {"documents", "digest"})))
    while isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(st.sampled_from(["other", 0.123, None, True, []]).filter(lambda v: v != place[key]))
    assert digest_of(content) != content["digest"]
    assert path.read_text() == before


def test_another_layout_of_the_same_values_is_the_same(run):
    path = run / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True, indent=7))
    assert states(run)["report.json"] == "same"


def test_the_digest_is_of_the_content_and_not_of_the_documents(run):
    data = json.loads((run / "report.json").read_text())
    inner = {name: value for name, value in data.items() if name not in ("digest", "documents")}
    assert data["digest"] == canonical_digest(inner)


def test_a_report_that_was_moved_finds_the_run_by_its_folder(run, tmp_path):
    out = tmp_path / "elsewhere"
    cli.main(["report", str(run), "--out", str(out)])
    assert states(out)["config.yaml"] == "missing"
    assert set(states(out, folder=run).values()) == {"same"}
    assert code(out, "--folder", run) == 0
    assert code(out) == 3


def test_an_adapter_outside_of_the_run_is_looked_for_where_it_is_said_to_be(run, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"abc")
    cli.main(["report", str(run), "--adapter", str(weights)])
    assert states(run)["adapter_model.safetensors"] == "missing"
    assert code(run) == 3
    assert code(run, "--adapter", weights) == 0
    (weights / "adapter_model.safetensors").write_bytes(b"abd")
    assert states(run, adapter=weights)["adapter_model.safetensors"] == "changed"


def test_a_file_of_another_size_is_not_read(run, monkeypatch):
    (run / "metrics.csv").write_bytes(b"x" * 1000)
    read = []
    hash_of = verifying.sha256_of
    monkeypatch.setattr(verifying, "sha256_of", lambda path: read.append(path.name) or hash_of(path))
    assert states(run)["metrics.csv"] == "changed"
    assert "config.yaml" in read
    assert "metrics.csv" not in read


# -- hostile reports -----------------------------------------------------------------------------------------

CLIMBING = ["../secret", "/etc/passwd", "a/../../secret", "", "a\\..\\b", "a\0b", "link/x", "loop"]


@pytest.mark.parametrize("path", CLIMBING)
@pytest.mark.parametrize("where", ["files", "documents"])
def test_a_path_that_leads_out_of_the_folder_is_one_line(path, where, run, capsys):
    (run.parent / "secret").write_text("x")
    (run.parent / "other").mkdir()
    (run / "link").symlink_to(run.parent / "other")
    (run / "loop").symlink_to(run / "loop")
    one = {"path": path, "bytes": 1, "sha256": "0" * 64} | ({"of": "run"} if where == "files" else {})
    edit(run, lambda data: data[where].append(one))
    capsys.readouterr()
    assert code(run) == 2
    out = capsys.readouterr()
    (line,) = out.err.splitlines()
    assert line.startswith(f"error: {run / 'report.json'}: found the path ")
    assert out.out == ""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("[1]", "is not a report"),
        ('{"kind": "run"}', "schema is None"),
        ('{"kind": "run", "schema": 1}', "schema is 1"),
        ('{"kind": "run", "schema": true}', "schema is True"),
        ('{"kind": "sweep", "schema": 1}', "of a sweep"),
        ('{"kind": "run", "schema": 2}', "digest is None"),
        ('{"kind": "run", "kind": "run", "schema": 2}', "repeated key"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested too deeply"),
        ("1" * 100_000, "invalid JSON"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_what_is_no_report_is_one_line(content, expected, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert code(path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert expected in line
    assert len(line) < 600


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files", None),
        ("files", [1]),
        ("files", [{"path": "a", "bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"of": "me", "path": "a", "bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"of": "run", "path": "a", "bytes": -1, "sha256": "0" * 64}]),
        ("files", [{"of": "run", "path": "a", "bytes": 1, "sha256": "0" * 63}]),
        ("files", [{"of": "run", "path": 7, "bytes": 1, "sha256": "0" * 64}]),
        ("files", [{"of": "run", "path": "a" * 501, "bytes": 1, "sha256": "0" * 64}]),
        ("documents", {}),
        ("documents", [{"path": "a", "bytes": True, "sha256": "0" * 64}]),
        ("digest", "short"),
        ("digest", 3),
    ],
)
def test_hashes_of_another_form_are_named(name, value, run, capsys):
    path = run / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    capsys.readouterr()
    assert code(run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"report.json: {name} " in line


@pytest.mark.parametrize("word", ["NaN", "Infinity", "1e999"])
def test_a_number_that_json_lacks_is_one_line(word, run, capsys):
    path = run / "report.json"
    path.write_text(path.read_text().replace("0.6512", word, 1))
    capsys.readouterr()
    assert code(run) == 2
    assert "report.json: found NaN or an infinity" in capsys.readouterr().err


def test_a_report_that_is_too_large_is_one_line(run, monkeypatch, capsys):
    monkeypatch.setattr(verifying, "LARGEST", 1000)
    capsys.readouterr()
    assert code(run) == 2
    assert "report.json: over 1,000 bytes" in capsys.readouterr().err


def test_a_pipe_in_place_of_a_file_is_missing(run):
    (run / "metrics.csv").unlink()
    os.mkfifo(run / "metrics.csv")
    assert states(run)["metrics.csv"] == "missing"


@pytest.mark.parametrize(
    ("words", "named"),
    [(["nowhere.json"], "nowhere.json"), ([], "REPORT"), (["{run}", "--folder", "nowhere"], "--folder"),
     (["{run}", "--adapter", "nowhere"], "--adapter"), (["{run}", "--fix"], "--fix")],
)  # fmt: skip
def test_options_that_do_not_fit_are_one_line(words, named, run, capsys):
    capsys.readouterr()
    assert code(*(word.format(run=run) for word in words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_it_answers_without_the_libraries_that_take_long(run):
    script = "import sys; sys.argv = ['lit-mem', 'verify', sys.argv[1]]\nfrom lit_mem.cli.start import run\nrun()\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print('MODULES', *sys.modules)", str(run)],
        capture_output=True, text=True, check=True, timeout=900,
    )  # fmt: skip
    loaded = set(done.stdout.rpartition("MODULES")[2].split())
    assert "lit_mem.report.verify" in loaded
    assert not {"torch", "lightning", "numpy", "pyarrow", "matplotlib", "jinja2", "transformers"} & loaded
