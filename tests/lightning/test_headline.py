"""Metrics sent to loggers: the main ones, and those that something in the run reads."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lit_mem import callbacks as listed
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.headline import is_main
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Measure, Result
from lit_mem.audit.suite import of_canaries, suite
from lit_mem.errors import ConfigError
from lit_mem.extraction.base import ExtractionMeasure
from lit_mem.files.record import FILE, read
from lit_mem.lightning.auditing import latest_metrics
from lit_mem.lightning.memorization import Memorization
from lit_mem.report.history import read_history

pytestmark = pytest.mark.slow

FEW = ExtractionOptions(n_members=3, n_heldout=3)
LIGHTNINGS_OWN = {"epoch"}


class Sink(DummyLogger):
    """Records the names and steps of metrics sent to a logger."""

    log_image = None  # it shows no plots

    def __init__(self):
        super().__init__()
        self.steps = {}

    def log_metrics(self, metrics, step=None):
        for name in metrics.keys() - LIGHTNINGS_OWN:
            self.steps.setdefault(name, []).append(step)


class Own(Measure):
    """A custom measure."""

    name_prefixes = ("mine/of/",)

    def names(self):
        return ["mine/number"]

    def compute(self, run):
        return Result({"mine/number": 1.0, "mine/of/one": 2.0})


class Seen(Callback):
    """Metric names that a callback can read at the end of each validation, like Lightning's own monitors."""

    def __init__(self):
        self.names = []

    def on_validation_end(self, trainer, pl_module):
        self.names.append(set(trainer.callback_metrics))


@pytest.fixture(scope="module")
def fits(module, data, trainer):
    """Fits of two epochs that differ in the metrics sent: `fits("main")`, "all" or "listed"; each is made once."""
    callbacks = {
        "main": lambda: [Memorization(extraction=FEW)],
        "all": lambda: [Memorization(extraction=FEW, log="all")],
        "listed": lambda: [listed.Perplexity(), listed.MembershipInference(), listed.Baseline()],
    }

    @cache
    def fit(name):
        torch.manual_seed(3)
        sink, seen = Sink(), Seen()
        t = trainer([*callbacks[name](), seen], logger=sink)
        t.fit(module(), data())
        return SimpleNamespace(logger=sink, seen=seen.names, trainer=t, metrics=latest_metrics(t))

    return fit


def test_loggers_get_the_main_metrics(fits):
    names = fits("main").logger.steps.keys()
    assert all(is_main(name) for name in names)
    assert {name for name in fits("main").metrics if is_main(name)} == names
    assert len(names) < 40 < len(fits("main").metrics)


def test_each_begins_before_training_and_has_a_value_a_validation(fits):
    steps = {name: steps for name, steps in fits("main").logger.steps.items() if name != "train/loss"}
    assert set(map(tuple, steps.values())) == {(0, 3, 7)}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_all_of_them_are_sent_on_request_and_by_measures_that_are_listed(fits):
    assert fits("all").logger.steps.keys() == fits("all").metrics.keys() > fits("main").logger.steps.keys()
    assert "mia/zlib_balanced_accuracy" in fits("listed").logger.steps
    assert fits("listed").logger.steps.keys() == fits("listed").metrics.keys()


@pytest.mark.slow
def test_callbacks_can_read_every_metric_whatever_is_sent(fits):
    assert fits("main").seen == fits("all").seen
    assert {name: value for name, value in fits("main").metrics.items() if "time/" not in name} == {
        name: value for name, value in fits("all").metrics.items() if "time/" not in name
    }
    assert fits("main").metrics.keys() == set(fits("main").trainer.callback_metrics)


def test_with_canaries_and_private_training_the_standard_suite_sends_61_with_a_limits_line():
    names = known_of([*suite("standard", extraction=ExtractionOptions()), *of_canaries([])]).metrics
    names |= {"train/loss", "val/loss", "privacy/epsilon", "privacy/delta", "privacy/noise_multiplier"}
    names |= {"privacy/largest_group", "privacy/epsilon_largest_group"}
    assert len([name for name in names if is_main(name)]) == 60


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_a_threshold_or_a_monitor_names_is_sent_and_what_a_users_measure_logs(module, data, trainer, tmp_path):
    sink = Sink()
    callbacks = [
        Memorization("quick", stop="mia/zlib_auroc > 1", lower_bound=True, measures=[Own()]),
        EarlyStopping("memorization/exposed_share", strict=False),
        ModelCheckpoint(tmp_path, monitor="correlation/perplexity_vs_loss"),
    ]
    trainer(callbacks, logger=sink, max_epochs=1).fit(module(), data(train_size=100, heldout_size=100))
    more = {name for name in sink.steps if not is_main(name)}
    assert more == {
        "mia/zlib_auroc_low", "mia/zlib_auroc_high", "memorization/exposed_share", "correlation/perplexity_vs_loss",
        "mine/number", "mine/of/one",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_without_training_the_main_ones_are_sent_and_all_are_recorded(stage, module, data, trainer, tmp_path):
    logger = CSVLogger(str(tmp_path), "")
    t = trainer([Memorization("quick")], logger=logger)
    sent, *_ = getattr(t, stage)(module(), data(), verbose=False)
    assert {f"{stage.removesuffix('idate')}/perplexity_base", "mia/loss_auroc_base"} <= sent.keys()
    assert all(is_main(name) for name in sent)
    (row,) = read_history(Path(logger.log_dir) / "metrics.csv").validations
    assert row.metrics.keys() == sent.keys()
    (line,) = read(Path(logger.log_dir) / FILE)[0]
    assert line.metrics.keys() == set(t.callback_metrics) > sent.keys()


class Stops(ExtractionMeasure):
    """Ends generation like Ctrl-C."""

    def __call__(self, continuation):
        return 0.0

    def over(self, continuations):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_of_a_pass_that_is_stopped_the_main_ones_are_sent_and_all_are_recorded(module, data, trainer, tmp_path):
    logger = CSVLogger(str(tmp_path), "")
    t = trainer([Memorization(extraction=replace(FEW, measures={"exact_rate": Stops()}))], logger=logger)
    with pytest.raises(SystemExit):
        t.validate(module(), data(), verbose=False)
    (row,) = read_history(Path(logger.log_dir) / "metrics.csv").validations
    (line,) = read(Path(logger.log_dir) / FILE)[0]
    assert not line.complete
    assert row.metrics.keys() == {name for name in line.metrics if is_main(name)} < line.metrics.keys()


def test_another_value_of_the_option_is_rejected():
    with pytest.raises(ConfigError, match="log is 'some'; expected main or all"):
        Memorization(log="some")


@pytest.mark.slow
def test_without_a_logger_everything_is_returned(module, data, trainer):
    t = trainer([Memorization("quick")])
    found, *_ = t.validate(module(), data(), verbose=False)
    assert found.keys() == set(t.callback_metrics)
    assert "mia/zlib_balanced_accuracy" in found
