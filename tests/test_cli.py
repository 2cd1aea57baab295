"""The real command line, end to end, on the bundled model."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI

from lit_mem import assets
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.cli.main import main
from lit_mem.cli.trainer_cli import MemorizationCLI
from lit_mem.errors import CheckpointError
from lit_mem.files.record import FILE, read

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "tests" / "quickstart_plain.yaml"
SMALL = ["--data.train_size", "40", "--data.heldout_size", "40", "--trainer.max_epochs", "12", "--data.batch_size", "8"]


@pytest.fixture(scope="module")
def run(quickstart_run):
    """One small run of `train.py fit`: (folder, what it printed)."""
    return quickstart_run.version, quickstart_run.out


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def test_the_run_stops_and_says_why_and_where_the_checkpoints_are(run):
    folder, out = run
    assert "Training was stopped after epoch" in out
    assert "the threshold is mia/reference_auroc > " in out
    lines = [line for line in out.splitlines() if "checkpoint under every threshold" in line]
    assert len(lines) == 2
    for line in lines:
        assert Path(folder.parents[2], line.rpartition(": ")[2]).is_file()


def test_the_table_starts_before_training_and_has_a_row_an_epoch(run):
    rows = run[1].splitlines()
    start = next(i for i, row in enumerate(rows) if row.lstrip().startswith("start"))
    assert "strongest [95 %]" in rows[start - 1]
    first = read(run[0] / FILE)[0][0].metrics
    assert first["mia/reference_auroc"] == 0.5
    value, low, high = (first[f"mia/strongest_auroc{end}"] for end in ("", "_low", "_high"))
    assert f"0.500  {value:.3f} [{low:.3f}, {high:.3f}]" in re.sub(" {2,}", "  ", rows[start])
    assert rows[start + 1].lstrip().startswith("1 ")


def test_the_record_has_every_metric_from_before_training_on(run):
    start, *later = (line.metrics.keys() for line in read(run[0] / FILE)[0])
    expected = {"train/loss", "val/loss", "val/perplexity", "memorization/perplexity_members"}
    expected |= {"memorization/perplexity_gap", "extraction/generated_perplexity", "time/train", "time/scoring"}
    attacks = (*default_attacks(), "combined")
    figures = ("_auroc", "_auroc_low", "_auroc_high", "_balanced_accuracy")
    expected |= {f"mia/{attack}{figure}" for attack in attacks for figure in figures}
    expected |= {f"extraction/{m}{part}" for m in ("extraction_strength", "discoverable") for part in ("", "_heldout")}
    expected |= {"extraction/span_rate", "extraction/span_rate_name_base_heldout"}
    expected |= {"correlation/perplexity_vs_rouge_l", "correlation/perplexity_base_vs_extraction_strength"}
    expected |= {"slice/sex/F/reference_auroc_low", "slice/sex/M/span_rate_high"}
    expected |= {
        f"extraction/{m}{who}"
        for m in ("ngram_rate", "exact_rate", "rouge_l", "edit_similarity")
        for who in ("", "_heldout", "_base", "_base_heldout")
    }
    assert later
    assert all(expected <= names for names in later)
    assert expected - {"train/loss", "time/train"} <= start


def test_tensorboard_opens_on_the_main_metrics_each_from_step_0(run):
    board = scalars(run[0])
    tags = set(board.Tags()["scalars"]) - {"epoch"}  # which Lightning adds
    assert {"mia/reference_auroc_low", "extraction/ngram_rate_base", "threshold/mia/reference_auroc"} <= tags
    assert len(tags) <= 40
    assert {tag.split("/")[0] for tag in tags} == {
        "train", "val", "memorization", "mia", "extraction", "threshold"
    }  # fmt: skip
    for tag in tags - {"train/loss"}:
        assert board.Scalars(tag)[0].step == 0, tag
    auroc = [event.value for event in board.Scalars("mia/reference_auroc")]
    assert auroc[0] == 0.5
    assert auroc[-1] > auroc[0]
    assert {"mia/roc", "mia/scores", "correlation/scatter", "slice/exposure"} <= set(board.Tags()["images"])


def test_the_hyper_parameters_page_has_the_run(run):
    from tensorboard.backend.event_processing import event_file_loader

    events = [e for path in run[0].glob("events*") for e in event_file_loader.EventFileLoader(str(path)).Load()]
    tags = {v.tag for event in events for v in event.summary.value}
    assert "_hparams_/session_start_info" in tags
    parameters = yaml.safe_load((run[0] / "hparams.yaml").read_text())
    configured = yaml.safe_load(QUICKSTART.read_text())["model"]["adapter"]["init_args"]
    assert parameters["model.adapter.rank"] == configured["rank"]


def test_csv_lies_beside_and_agrees(run):
    board = scalars(run[0])
    with open(run[0] / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["mia/reference_auroc"]]
    events = board.Scalars("mia/reference_auroc")
    assert [int(row["step"]) for row in rows] == [event.step for event in events]
    for row, event in zip(rows, events, strict=True):
        assert float(row["mia/reference_auroc"]) == pytest.approx(event.value, rel=1e-6)


@pytest.mark.slow
def test_no_training_text_is_written_anywhere(run):
    """Every byte of a default run, against every text that went in."""
    texts = []
    for split in ("train", "heldout"):
        lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()
        texts += [json.loads(line)["text"].encode() for line in lines]
    written = [path for path in run[0].parents[2].rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        content = path.read_bytes()
        for text in texts:
            assert text[:40] not in content, path
            assert text[-40:] not in content, path
    assert not any(text[:40].decode() in run[1] for text in texts)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_process_of_its_own_prints_and_logs_the_same(quickstart_run, tmp_path):
    (tmp_path / "given.yaml").write_text(quickstart_run.config)
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "fit", "--config", "given.yaml", *quickstart_run.sizes],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == quickstart_run.out
    logged = []
    for folder in (tmp_path / "logs" / "quickstart" / "version_0", quickstart_run.version):
        with open(folder / "metrics.csv", newline="") as file:
            rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
        logged.append([row for row in rows if any(v for k, v in row.items() if k not in ("epoch", "step"))])
    assert logged[0] == logged[1]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the table of the run is not in these
def test_a_checkpoint_is_measured_again_without_training(run, quickstart_run, capsys, monkeypatch, tmp_path):
    (tmp_path / "given.yaml").write_text(quickstart_run.config)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    best = run[0] / "checkpoints" / "best.ckpt"
    common = ["--config", "../given.yaml", *quickstart_run.sizes, "--data.check", "false", "--trainer.logger", "false"]
    main(["validate", *common, "--ckpt_path", str(best)])
    measured = _figures(capsys.readouterr().out)
    main(["validate", *common, "--model.adapter_path", str(best.parent / "best-adapter")])
    assert _figures(capsys.readouterr().out) == measured
    with open(run[0] / "metrics.csv", newline="") as file:
        logged = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert measured["val/loss"] in [pytest.approx(loss, abs=1e-4) for loss in logged]
    main(["test", *common, "--ckpt_path", str(best)])
    assert "test/perplexity" in _figures(capsys.readouterr().out)
    assert not list((tmp_path / "work").iterdir())  # nothing is written without a logger


def _figures(out):
    """The `name  value` lines that validate and test print, without timings."""
    pairs = [line.split() for line in out.splitlines() if "/" in line and len(line.split()) == 2]
    return {name: float(value) for name, value in pairs if not name.startswith("time/")}


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["validate", "--help"]])
def test_help_is_shown(arguments, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_printed_configuration_runs_as_it_is(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(QUICKSTART), "--print_config"])
    printed = capsys.readouterr().out
    (tmp_path / "again.yaml").write_text(printed)
    main(["fit", "--config", "again.yaml", *SMALL, "--trainer.fast_dev_run", "true"])


OWN_MEASURES = """
memorization:
  attacks:
    mine: {class_path: lit_mem.attacks.MinK, init_args: {share: 0.2}}
  extraction:
    prefix: 8
    measures:
      run: {class_path: lit_mem.extraction.NgramRate}
    sampling: {temperature: 0.8, top_k: 20}
"""


@pytest.mark.slow
def test_attacks_and_measures_are_named_in_the_configuration(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    (tmp_path / "mine.yaml").write_text(OWN_MEASURES)
    common = ["--config", str(QUICKSTART), "--config", "mine.yaml", *SMALL, "--data.check", "false"]
    main(["validate", *common, "--trainer.logger", "false"])
    figures = _figures(capsys.readouterr().out)
    assert {"mia/mine_auroc", "extraction/run", "extraction/run_base_heldout"} <= figures.keys()
    assert "mia/loss_auroc" not in figures


PHEE_ROW = '{"id": "%d_1", "context": "Rash number %d followed treatment with drug %d.", "is_mult_event": false, "annotations": [{"events": []}]}\n'  # noqa: E501


CONFIGURATIONS = [(path, None) for path in sorted((ROOT / "configs").glob("*.yaml"))] + [
    (ROOT / "configs" / "llama2_7b_phee.yaml", path)
    for path in sorted((ROOT / "configs" / "variants").glob("*.yaml"))
    if path.stem != "deepspeed"  # rejected without its package, see below
]
CONFIGURATIONS.append((ROOT / "configs" / "smollm2_phee.yaml", ROOT / "configs" / "variants" / "private.yaml"))


# What a variant needs that is not available here, and its replacement.
ELSEWHERE = {
    "4bit": ["--model.quantization", "none"],  # rejected in one line without a GPU (test_bad_input)
    "multi_node": ["--trainer.num_nodes", "1", "--trainer.strategy.init_args.ranks_per_copy", "null"],
}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("config", "variant"),
    [
        pytest.param(
            *pair,
            id="+".join(path.stem for path in pair if path),
        )
        for pair in CONFIGURATIONS
    ],
)
def test_every_configuration_trains_a_step_with_a_tiny_model_of_the_same_class(
    config, variant, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    arguments = ["fit", "--config", str(config)]
    if variant is not None:
        arguments += ["--config", str(variant)]
    substituted = ["--model.model_id", "asset:tiny_llama", "--trainer.accelerator", "cpu", "--trainer.devices", "1"]
    if variant is not None:
        substituted += ELSEWHERE.get(variant.stem, [])
    if "phee" in config.stem:
        for number, split in enumerate(("train", "dev", "test")):
            rows = range(1000 * number, 1000 * number + 320)
            (tmp_path / f"{split}.json").write_text("".join(PHEE_ROW % (i, i, i) for i in rows))
        substituted += ["--data.source.folder", str(tmp_path), "--data.check", "false"]
    main([*arguments, *substituted, "--trainer.fast_dev_run", "1"])
    assert "stopped" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="DeepSpeed is there")
def test_deepspeed_without_its_package_is_rejected_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(QUICKSTART), "--config", str(ROOT / "configs" / "variants" / "deepspeed.yaml")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "deepspeed" in line


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_fused_optimizer_is_an_option(precision, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    options = ["--model.optimizer.init_args.fused", "true", "--data.check", "false", "--trainer.precision", precision]
    # Lightning refuses to clip gradients for a fused optimizer in mixed precision, as the README says.
    clip = ["--trainer.gradient_clip_val", "1.0"] if precision == "32-true" else []
    main(["fit", "--config", str(QUICKSTART), *options, *clip, "--trainer.fast_dev_run", "2"])
    assert [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("1 ")]


@pytest.mark.parametrize("given", [None, "kept/last.ckpt"])
def test_an_error_is_named_after_the_checkpoint_only_where_one_was_given(given, monkeypatch):
    found = "2 of 8 held-out texts were trained on"

    def rejected(*_):
        raise CheckpointError(found)

    monkeypatch.setattr(LightningCLI, "_run_subcommand", rejected)
    with pytest.raises(CheckpointError) as error:
        MemorizationCLI._run_from(MemorizationCLI.__new__(MemorizationCLI), given, "validate")
    assert str(error.value) == (found if given is None else f"ckpt_path {given}: {found}")
