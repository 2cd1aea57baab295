"""TensorBoard's Custom Scalars page: charts of tags in the run, and a line for each limit."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.thresholds import Threshold
from lit_mem.callbacks import MemorizationEarlyStopping
from lit_mem.lightning import auditing
from lit_mem.lightning.dashboard import layout, limit_tags
from lit_mem.lightning.memorization import Memorization

ABOVE, BELOW = Threshold("mia/zlib_auroc", True, 0.8), Threshold("mia/zlib_auroc", False, 0.3)
AREA = ["mia/zlib_auroc", "mia/zlib_auroc_low", "mia/zlib_auroc_high"]


def board(folder):
    """Scalars by tag as (step, value), and the layouts of the run."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    layouts = [layout_pb2.Layout() for _ in events.Tensors("custom_scalars__config__")]
    for made, event in zip(layouts, events.Tensors("custom_scalars__config__"), strict=True):
        made.ParseFromString(event.tensor_proto.string_val[0])
    return SimpleNamespace(scalars=scalars, layouts=layouts)


@pytest.fixture(scope="module")
def run(module, data, trainer, tmp_path_factory):
    """A fit of one epoch with two thresholds and a prefix: its TensorBoard contents."""
    logger = TensorBoardLogger(str(tmp_path_factory.mktemp("board")), prefix="a.b", default_hp_metric=False)
    callbacks = [
        Memorization(stop="mia/reference_auroc > 0.987", extraction=ExtractionOptions(n_members=3, n_heldout=3)),
        MemorizationEarlyStopping(["val/perplexity < 1.5"]),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auditing, "log_plot", lambda *args: None)  # drawing would dominate the test's time
        trainer(callbacks, logger=logger, max_epochs=1).fit(module(), data())
    return board(Path(logger.log_dir))


def test_it_is_written_once_and_every_tag_of_it_is_one_of_the_run(run):
    (made,) = run.layouts
    assert [category.title for category in made.category] == [
        "Perplexity", "Membership inference", "Extraction", "Limits"
    ]  # fmt: skip
    charts = [chart for category in made.category for chart in category.chart]
    matched = []
    for chart in charts:
        for pattern in chart.multiline.tag:  # matched like TensorBoard does
            (tag,) = [tag for tag in run.scalars if re.match(pattern, tag)]
            matched.append(tag)
        for series in chart.margin.series:
            assert {series.lower, series.upper} == {f"{series.value}_low", f"{series.value}_high"}
            matched += [series.value, series.lower, series.upper]
    assert len(charts) == 9
    assert set(matched) <= run.scalars.keys()
    assert all(tag.startswith("a.b-") for tag in matched)


def test_a_limit_is_a_line_from_before_training_on(run):
    steps = [step for step, _ in run.scalars["a.b-mia/reference_auroc"]]
    assert len(steps) == 2
    for tag, limit in (("mia/reference_auroc", 0.987), ("val/perplexity", 1.5)):
        line = run.scalars[f"a.b-threshold/{tag}"]
        assert [step for step, _ in line] == steps
        assert [value for _, value in line] == [pytest.approx(limit)] * 2


def test_a_chart_holds_what_the_logger_gets_and_is_left_out_without_it():
    assert layout({"val/perplexity", "mia/loss_auroc"}) == {
        "Perplexity": {"perplexity of members and held-out texts": ["Multiline", ["val/perplexity$"]]}
    }
    assert layout([]) == {}


def test_a_metric_with_a_limit_has_charts_of_its_own():
    made = layout(AREA, [ABOVE])
    assert made["Membership inference"] == {"mia/zlib_auroc, 95 % interval": ["Margin", AREA]}
    lines = [f"{tag}$" for tag in [*AREA, "threshold/mia/zlib_auroc"]]
    assert made["Limits"] == {"mia/zlib_auroc and its limit": ["Multiline", lines]}
    assert "Limits" not in layout(["val/loss"], [ABOVE])


def test_two_limits_on_a_metric_are_two_lines_and_one_that_is_set_twice_is_one():
    tags = limit_tags([ABOVE, BELOW, ABOVE])
    assert tags == {"threshold/mia/zlib_auroc": ABOVE, "threshold/mia/zlib_auroc_2": BELOW}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_validation_by_itself_has_no_charts(module, data, trainer, tmp_path):
    logger = TensorBoardLogger(str(tmp_path), default_hp_metric=False)
    t = trainer([Memorization("quick", stop="val/loss > 99")], logger=logger)
    t.validate(module(), data(), verbose=False)
    events = EventAccumulator(logger.log_dir).Reload()
    assert "custom_scalars__config__" not in events.Tags()["tensors"]
    assert "threshold/val/loss" not in events.Tags()["scalars"]
