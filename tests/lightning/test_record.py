"""The record of a trainer's run: one line per validation, with the logged metrics, and a report from it."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mem import assets
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.measure import Measure, Result
from lit_mem.callbacks import Extraction, MembershipInference, MemorizationEarlyStopping, Perplexity
from lit_mem.cli.report import make
from lit_mem.data.sources import CaseReports
from lit_mem.extraction.base import ExtractionMeasure
from lit_mem.files.record import FILE, Stop, read
from lit_mem.lightning.memorization import Memorization

MANY = ExtractionOptions(n_members=5, n_heldout=5)
N_TEST = 30
NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def data(data):
    """As elsewhere, with fewer texts."""
    return lambda **options: data(**({"train_size": 12, "heldout_size": 8} | options))


def rows(folder):
    """Rows of `metrics.csv` for validations and tests."""
    with (folder / "metrics.csv").open(newline="") as file:
        found = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in found if "val/loss" in row or "test/loss" in row]


@pytest.fixture(scope="module")
def fitted(module, data, trainer, tmp_path_factory):
    """A fit of two epochs with a threshold, followed by a validation and a test; (folder, trainer)."""
    logger = CSVLogger(str(tmp_path_factory.mktemp("fitted")), flush_logs_every_n_steps=1)
    t = trainer([Memorization(stop=["mia/reference_auroc > 0.987654321"], extraction=MANY, log="all")], logger=logger)
    model, texts = module(), data(train_size=30, heldout_size=20)
    few = tmp_path_factory.mktemp("few")
    for split, n in (("train", 40), ("heldout", 40), ("test", N_TEST)):
        lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (few / f"{split}.jsonl").write_text("".join(lines[:n]))
    texts.source = CaseReports(str(few))
    t.fit(model, texts)
    t.validate(model, texts, verbose=False)
    t.test(model, texts, verbose=False)
    return Path(logger.log_dir), t


def test_there_is_one_line_a_validation_with_what_loggers_have(fitted):
    folder, _ = fitted
    lines, notes = read(folder / FILE)
    assert notes == []
    assert [(line.stage, line.epoch, line.step) for line in lines] == [
        ("fit", 0, 0), ("fit", 1, 5), ("fit", 2, 10), ("validate", 2, 10), ("test", 2, 10)
    ]  # fmt: skip
    for line, row in zip(lines, rows(folder), strict=True):
        epoch = row.pop("epoch", -1)
        assert (epoch + (line.stage == "fit"), row.pop("step")) == (line.epoch, line.logged_step)
        own = {name: value for name, value in line.metrics.items() if not name.startswith("train/")}
        assert own == pytest.approx(row, rel=2**-23, nan_ok=True)
        assert {name: float(np.float32(value)) for name, value in own.items()} == pytest.approx(row, rel=1e-15)
        assert (line.complete, line.members, line.heldout) == (True, 20, N_TEST if line.stage == "test" else 20)
        assert line.stop == [Stop("memorization.stop", ["mia/reference_auroc > 0.987654321"], "any", False)]
    assert any(float(np.float32(value)) != value for value in lines[1].metrics.values())  # not rounded


def strip(value):
    """Without a report's information on folder, times, and reasons for absence, which only a record has."""
    of_folder = ("name", "notes", "why", "sections")
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k not in of_folder and "time/" not in k}
    if isinstance(value, list):
        return [strip(one) for one in value if not (isinstance(one, dict) and "time/" in str(one.get("metric")))]
    return value


def alike(one, other):
    """Equal, with numbers up to float32 rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, str) and isinstance(other, str):  # ties in the last digit may round either way
        mine, theirs = (([*map(float, NUMBER.findall(text))], NUMBER.sub("#", text)) for text in (one, other))
        return mine[1] == theirs[1] and mine[0] == pytest.approx(theirs[0], rel=0.1, abs=1.1e-3)
    return one == (pytest.approx(other, rel=1e-6, abs=1e-6, nan_ok=True) if isinstance(one, float) else other)


def _without_validate(path):
    """A file of the run, without the rows of `validate` after the fit, at step 10."""
    lines = path.read_text().splitlines(keepends=True)
    if path.name == FILE:
        return "".join(line for line in lines if json.loads(line)["stage"] == "fit")
    step = lines[0].strip().split(",").index("step")
    return "".join(line for line in lines if line.split(",")[step] != "10")


def test_a_report_from_the_record_is_that_from_metrics_csv_up_to_rounding(fitted, tmp_path):
    made = {}
    for name in (FILE, "metrics.csv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(_without_validate(fitted[0] / name))
        # The trainer was set up in Python: without this, metrics.csv alone has no limits.
        (tmp_path / name / "config.yaml").write_text("memorization: {stop: mia/reference_auroc > 0.987654321}")
        made[name] = strip(make(tmp_path / name))
    assert [(one["epoch"], one["step"]) for one in made[FILE]["validations"]] == [(0, 0), (1, 4), (2, 9)]
    assert strip(make(fitted[0]))["validations"] == made[FILE]["validations"]  # including validations after the fit
    assert made[FILE]["key_metrics"]
    assert [row["set_by"] for row in made[FILE]["verdict"]["limits"]] == ["memorization.stop"]
    assert alike(made[FILE], made["metrics.csv"])
    assert not alike(made[FILE], made["metrics.csv"] | {"validations": made[FILE]["validations"][:-1]})


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_without_a_csv_logger_has_a_report(module, data, trainer, tmp_path):
    logger = TensorBoardLogger(str(tmp_path), "", default_hp_metric=False)
    trainer([Memorization("quick")], logger=logger, max_epochs=1).validate(module(), data(), verbose=False)
    report = make(Path(logger.log_dir))
    assert report["audit"]["command"] == "validate"
    assert [one["epoch"] for one in report["validations"]] == [0]
    assert report["validations"][0]["metrics"]["memorization/perplexity_members"] > 1


@pytest.mark.slow
def test_a_resumed_run_begins_its_record_with_its_own_first_validation(module, data, trainer, tmp_path):
    folders = []
    for epochs, checkpoint in ((1, None), (2, "one.ckpt")):
        logger = CSVLogger(str(tmp_path), "")
        folders.append(Path(logger.log_dir))
        t = trainer([Memorization("quick")], logger=logger, max_epochs=epochs)
        t.fit(module(), data(), ckpt_path=checkpoint and tmp_path / checkpoint)
        t.save_checkpoint(tmp_path / "one.ckpt")
    assert [[line.epoch for line in read(folder / FILE)[0]] for folder in folders] == [[0, 1], [2]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [pytest.param({}, marks=pytest.mark.slow), {"fast_dev_run": True}], ids=["no logger", "dry run"]
)
def test_a_run_that_writes_nothing_has_no_record(options, module, data, trainer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = CSVLogger(str(tmp_path)) if options else False
    trainer([MembershipInference()], logger=logger, max_epochs=1, default_root_dir=tmp_path, **options).fit(
        module(), data()
    )
    assert list(tmp_path.rglob(FILE)) == []


@pytest.mark.slow
def test_a_partial_check_before_training_is_not_recorded(module, data, trainer, tmp_path):
    t = trainer([MembershipInference()], logger=CSVLogger(str(tmp_path)), max_epochs=1, num_sanity_val_steps=1)
    t.fit(module(), data(scoring_tokens=200))
    assert [line.epoch for line in read(Path(t.logger.log_dir) / FILE)[0]] == [1]


class Stops(ExtractionMeasure):
    """Raises in its third use, like Ctrl-C."""

    left = 3

    def __call__(self, continuation):
        return 0.0

    def over(self, continuations):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return [0.0] * len(continuations)


@pytest.mark.slow
def test_where_generation_is_stopped_the_line_says_so(module, data, trainer, tmp_path):
    measures = [Extraction(4, 4, measures={"exact_rate": Stops()}), Perplexity()]
    t = trainer(measures, logger=CSVLogger(str(tmp_path)), max_epochs=1)
    with pytest.raises(SystemExit):
        t.fit(module(), data())
    lines, _ = read(Path(t.logger.log_dir) / FILE)
    assert [line.complete for line in lines] == [True, False]
    assert {"val/loss", "memorization/perplexity_members"} <= lines[1].metrics.keys()
    assert "extraction/exact_rate" not in lines[1].metrics


class Odd(Measure):
    """Values that JSON cannot represent, NaN, and a torch scalar."""

    def names(self):
        return ["odd/nan", "odd/high", "odd/low", "odd/tensor", "odd/absent"]

    def compute(self, run):
        self.absent = {"odd/absent": "there is none"}
        values = {"nan": math.nan, "high": math.inf, "low": -math.inf, "tensor": torch.tensor(0.5)}
        return Result({f"odd/{name}": value for name, value in values.items()})


class Logs(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("other/metric", 0.25)


@pytest.mark.slow
def test_what_other_callbacks_log_is_there_and_numbers_that_are_not_finite(module, data, trainer, tmp_path):
    t = trainer([Memorization("none", measures=[Odd()]), Logs()], logger=CSVLogger(str(tmp_path)), max_epochs=1)
    t.validate(module(), data(), verbose=False)
    ([line], _) = read(Path(t.logger.log_dir) / FILE)
    assert math.isnan(line.metrics.pop("odd/nan"))
    assert (line.metrics["odd/high"], line.metrics["odd/low"]) == (math.inf, -math.inf)
    assert (line.metrics["odd/tensor"], line.metrics["other/metric"]) == (0.5, 0.25)
    assert line.absent == {"odd/absent": "there is none"}
    assert (line.members, line.heldout) == (None, None)


@pytest.mark.slow
def test_each_rule_has_its_thresholds(module, data, trainer, tmp_path):
    stopping = MemorizationEarlyStopping(["val/loss < 0.1", "mia/loss_auroc > 0.9"], "all", lower_bound=True)
    t = trainer([MembershipInference(), stopping], logger=CSVLogger(str(tmp_path)), max_epochs=1)
    t.validate(module(), data(), verbose=False)
    ([line], _) = read(Path(t.logger.log_dir) / FILE)
    thresholds = ["val/loss < 0.1", "mia/loss_auroc > 0.9"]
    assert line.stop == [Stop("MemorizationEarlyStopping.thresholds", thresholds, "all", True)]
