"""Files that others may have made, read by a command: bounded time, and one line if they are malformed."""

import importlib.util
import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from lit_mem.cli import main as cli
from lit_mem.cli.report import make
from lit_mem.errors import CheckpointError, ConfigError, DataError
from lit_mem.files.untrusted import check_yaml, parse_json, read_json, read_yaml
from lit_mem.lightning.member_check import members_beside
from lit_mem.privacy.ledger import Ledger
from lit_mem.sweep.results import size
from lit_mem.sweep.trial import state

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parents[1] / "report" / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

LAUGHS = "a: &a0 [lol]\n" + "".join(f"b{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
MERGES = "a: &a0 {x: 1}\n" + "".join(f"b{n}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(12))
JSONS = {
    "deep list": "[" * 200_000,
    "deep object": '{"a":' * 500 + "1" + "}" * 500,
    "long number": '{"a": ' + "9" * 5000 + "}",
    "cut": '{"a": ',
    "not utf-8": b"\xff\xfe{",
}
YAMLS = {
    "aliases": LAUGHS,
    "merges": MERGES,
    "itself": "a: &a [*a]\n",
    "deep flow": "[" * 100_000,
    "deep block": "- " * 100_000 + "a",
    "deep keys": "? " * 100_000 + "a",
    "cut": "a: [",
    "long": "a: b\n" * 300_000,
}
# YAML that passes `check_yaml` but fails to load.
VALUES = {"a date": "a: 2020-13-45\n", "a tag": "a: !!python/object:os.system x\n", "a form": "a: !!timestamp x\n"}


LIMIT = 60.0  # CPU-seconds; without an early stop it takes hours


def line_of(run, kinds=(ConfigError, DataError)):
    """The error line of a run; None if it succeeds."""
    start, line = time.process_time(), None
    try:
        run()
    except kinds as error:
        line = str(error)
        assert "\n" not in line
        assert len(line) < 1000
    assert time.process_time() - start < LIMIT
    return line


@pytest.mark.parametrize("what", JSONS)
def test_hostile_json_is_one_line_that_names_the_file(what, tmp_path):
    path = tmp_path / "a.json"
    content = JSONS[what]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(path) in line_of(lambda: read_json(path))
    assert str(path) in line_of(lambda: read_json(path, ConfigError), kinds=ConfigError)


def test_json_is_read_up_to_its_limits(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "x" * 100}))
    assert read_json(path) == {"a": "x" * 100}
    assert "over 50 bytes" in line_of(lambda: read_json(path, DataError, 50))
    assert parse_json("[" * 100 + "]" * 100, "here") is not None
    assert "here: nested too deeply" in line_of(lambda: parse_json("[" * 101 + "]" * 101, "here"))


@pytest.mark.parametrize("what", [*YAMLS, *VALUES])
def test_hostile_yaml_is_one_line_that_names_the_file(what, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text((YAMLS | VALUES)[what])
    assert str(path) in line_of(lambda: read_yaml(path))


def test_yaml_is_read_up_to_its_limits():
    check_yaml("a: &a {b: [1, 2]}\nc: [*a, *a]\nd: {<<: *a, e: 1}\n", "here")
    check_yaml("[" * 100 + "]" * 100, "here")
    assert "nested too deeply" in line_of(lambda: check_yaml("[" * 101 + "]" * 101, "here"))
    check_yaml("a: &a [" + "1, " * 999 + "]\nb: [" + "*a, " * 150 + "]", "here")
    assert "aliases" in line_of(lambda: check_yaml("a: &a [" + "1, " * 999 + "]\nb: [" + "*a, " * 250 + "]", "here"))


@pytest.mark.parametrize("what", YAMLS)
def test_a_hostile_configuration_ends_the_command_in_a_line(what, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    path = tmp_path / "run.yaml"
    path.write_text(YAMLS[what])
    start = time.process_time()
    with pytest.raises(SystemExit) as stop:
        cli.main(["fit", "--config", str(path)])
    assert stop.value.code == 2
    assert time.process_time() - start < LIMIT
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("error")] == lines[-1:]
    assert str(path) in lines[-1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run's folder and a sweep's, as read by the report."""
    run = made.write_run(tmp_path_factory.mktemp("run") / "quick" / "version_0")
    made.write_where(run)
    (run / "run.json").write_text(json.dumps({"schema": 1, "command": "fit", "from": None}))
    return run, made.write_sweep(tmp_path_factory.mktemp("sweep") / "matrices")


OF_RUN = ("run.json", "checks.json", "where.json", "checkpoints/best-adapter/lit_mem.json")
OF_SWEEP = ("sweep.json", "findings.json", "trials/t0001/attempt_0/checks.json")
FORMS = ["null", "{}", "[1]", '{"from": {"relative": "\\u0000", "checkpoint": "x", "global_step": 1}}']


def with_file(folders, name, content, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(folders[name in OF_SWEEP], folder)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder, path


@pytest.mark.parametrize("name", [*OF_RUN, *OF_SWEEP[:2]])
@pytest.mark.parametrize("what", JSONS)
def test_a_report_names_the_hostile_json(what, name, folders, tmp_path, capsys):
    folder, path = with_file(folders, name, JSONS[what], tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("what", [*YAMLS, *VALUES])
def test_a_report_names_the_hostile_yaml(what, folders, tmp_path, capsys):
    folder, path = with_file(folders, "config.yaml", (YAMLS | VALUES)[what], tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_RUN, *OF_SWEEP])
@pytest.mark.parametrize("content", FORMS)
def test_a_report_has_no_traceback_for_json_of_another_form(content, name, folders, tmp_path):
    folder, _ = with_file(folders, name, content, tmp_path)
    line_of(lambda: make(folder))


@pytest.mark.parametrize(
    "content",
    [
        "epoch,step,val/loss\n0,1e999,1\n",
        "epoch,step,val/loss\n1e300,1,1\n",
        "epoch,step,val/loss\n0,1," + "9" * 200_000 + "\n",
        "epoch,step,val/loss\n0,1,x\n",
        b"epoch,step,val/\xff\n0,1,x\n",
        'epoch,"' + "x" * 200_000 + '"\n0,1\n',
    ],
)
def test_a_hostile_record_is_one_line(content, folders, tmp_path, capsys):
    folder, path = with_file(folders, "metrics.csv", content, tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("what", JSONS)
def test_a_hostile_line_of_json_in_the_record_is_one_line(what, folders, tmp_path, capsys):
    content = JSONS[what] if isinstance(JSONS[what], bytes) else JSONS[what].encode()
    folder, path = with_file(folders, "memorization.jsonl", content + b"\n", tmp_path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("what", JSONS)
def test_other_readers_of_json_stay_quiet_or_name_the_file(what, tmp_path):
    content = JSONS[what] if isinstance(JSONS[what], bytes) else JSONS[what].encode()
    for name in ("trial.json", "lit_mem.json", "privacy.jsonl"):
        (tmp_path / name).write_bytes(content + b"\n")
    assert state(tmp_path) == {}
    assert members_beside(str(tmp_path)) is None
    with pytest.raises(CheckpointError, match=r"privacy\.jsonl, line 1"):
        Ledger(tmp_path / "privacy.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("what", [*YAMLS, *VALUES])
def test_a_hostile_record_of_options_has_no_size(what, tmp_path):
    (tmp_path / "hparams.yaml").write_text((YAMLS | VALUES)[what])
    assert line_of(lambda: size(tmp_path)) is None
