"""`data.chunk` on the command line: from the option to the record and the page of the run."""

import json

import pytest
import yaml

from lit_mem.cli.main import main

pytestmark = pytest.mark.slow

SIZES = (
    "--data.train_size 12 --data.heldout_size 12 --trainer.max_epochs 1 --data.max_length 32 --memorization.stop [] "
    "--memorization.suite"
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; what it printed on standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        main(list(words))
        return capsys.readouterr().err

    return command


def fit(*words):
    return ["fit", "--config", "quickstart", *SIZES.split(), "quick", *words]


@pytest.mark.slow
def test_a_run_in_windows_is_recorded_reported_and_measured_again(run, tmp_path, capsys):
    said = run(*fit("--data.chunk.tokens", "32", "--data.chunk.stride", "16"))
    assert "data.chunk: 12 of 12 training texts" in said
    assert "data.max_length=32 truncates" not in said
    folder = tmp_path / "logs" / "quickstart" / "version_0"
    lines = [json.loads(line) for line in (folder / "memorization.jsonl").read_text().splitlines()]
    for line in lines:
        figures = line["metrics"]
        assert figures["extraction/longest_run"] >= 1
        assert {f"extraction/longest_run{of}" for of in ("_heldout", "_base", "_base_heldout")} <= set(figures)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["data"]["chunk"] == {"tokens": 32, "stride": 16}
    run("report", str(folder))
    page = json.loads((folder / "report.json").read_text())
    (length,) = [row["value"] for row in page["setup"] if row["what"] == "Length"]
    assert "32" in length
    assert "16" in length
    assert any(row["metric"] == "extraction/longest_run" for row in page["key_metrics"])
    with pytest.raises(SystemExit):
        run("localize", str(folder), "--example", "3")
    assert "--example: 12 texts of this run are trained on in windows (data.chunk)" in capsys.readouterr().err
    again = run(
        "validate", "--config", str(folder / "config.yaml"), "--ckpt_path", str(folder / "checkpoints/last.ckpt")
    )
    assert "data.chunk: 12 of 12" in again
    (other,) = (tmp_path / "logs" / "quickstart" / "version_1").glob("memorization.jsonl")
    measured = json.loads(other.read_text().splitlines()[-1])["metrics"]
    for name in ("val/loss", "mia/reference_auroc", "extraction/longest_run"):
        assert measured[name] == pytest.approx(lines[-1]["metrics"][name], abs=1e-6), name


@pytest.mark.parametrize(
    ("words", "chunk"),
    [
        (["--data.chunk.stride", "8"], {"tokens": None, "stride": 8}),
        (["--data.chunk", "{tokens: 20}"], {"tokens": 20, "stride": None}),
        (["--data.chunk", "{}"], {"tokens": None, "stride": None}),
        (["--config", "more.yaml"], {"tokens": 24, "stride": 12}),
        (["--config", "more.yaml", "--data.chunk.stride=6"], {"tokens": 24, "stride": 6}),
        (["--config", "more.yaml", "--data.chunk=null"], None),
    ],
)
def test_other_ways_to_give_it(tmp_path, monkeypatch, capsys, words, chunk):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.yaml").write_text("data: {chunk: {tokens: 24, stride: 12}}")
    with pytest.raises(SystemExit) as ended:
        main([*fit(*words), "--print_config"])
    assert not ended.value.code
    assert yaml.safe_load(capsys.readouterr().out)["data"]["chunk"] == chunk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data.chunk.stride", "40"], "data.chunk.stride is 40; expected at most 32"),
        (["--data.chunk.tokens", "64"], "data.chunk.tokens is 64; expected at most 32"),
        (
            ["--data.chunk.tokens", "32", "--model.privacy.target_epsilon", "8", "--model.adapter.dropout", "0"],
            "data.chunk is set, which is incompatible with model.privacy",
        ),
    ],
)
def test_what_cannot_be_is_one_line(run, capsys, words, said):
    with pytest.raises(SystemExit):
        run(*fit(*words))
    lines = [line for line in capsys.readouterr().err.splitlines() if said in line]
    assert len(lines) == 1
