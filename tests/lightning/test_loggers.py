"""Each kind of logger gets plots and tables through its package's calls; none of the packages is needed."""

import numpy as np
import pytest
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from lit_mem.audit.measure import Table
from lit_mem.lightning.loggers import KINDS, log_plot, log_table

TABLE = Table(("member", "mia/reference"), [["train.jsonl:3", "+0.12"], ["a|b\x1b[31m.jsonl:1", "-0.11"]])
ROWS = [["train.jsonl:3", "+0.12"], ["a|b\\x1b[31m.jsonl:1", "-0.11"]]
MARKDOWN = "| member | mia/reference |\n| --- | --- |\n| train.jsonl:3 | +0.12 |\n| a&#124;b"


class Client:
    """Records calls with the signatures of `mlflow.MlflowClient`."""

    def __init__(self):
        self.calls = []

    def log_figure(self, run_id, figure, artifact_file, *, save_kwargs=None):
        self.calls.append((run_id, type(figure), artifact_file))

    def log_text(self, run_id, text, artifact_file):
        self.calls.append((run_id, text[: len(MARKDOWN)], artifact_file))


class Experiment:
    """Records calls with the signatures of `comet_ml.CometExperiment`."""

    def __init__(self):
        self.calls = []

    def log_figure(self, figure_name=None, figure=None, overwrite=False, step=None, metadata=None, format="auto"):
        self.calls.append((figure_name, type(figure), step))

    def log_table(self, filename, tabular_data=None, headers=False, **format_kwargs):
        self.calls.append((filename, tabular_data, headers, format_kwargs))


class MLFlow(MLFlowLogger):
    experiment = run_id = None

    def __init__(self):
        self.__class__ = type("Mine", (MLFlow,), {"experiment": Client(), "run_id": "run 7"})


class Comet(CometLogger):
    experiment = None

    def __init__(self):
        self.__class__ = type("Mine", (Comet,), {"experiment": Experiment()})


class Wandb(WandbLogger):
    def __init__(self):
        self.calls = []

    def log_image(self, key, images, step=None, **kwargs):
        (image,) = images
        self.calls.append((key, image.dtype, image.ndim, step))

    def log_table(self, key, columns=None, data=None, dataframe=None, step=None):
        self.calls.append((key, columns, data, step))


@pytest.fixture
def given(trainer):
    """Sends a plot and a table to a logger, as at step 12."""

    def give(logger):
        t = trainer(logger=logger)
        t.fit_loop.epoch_loop._batches_that_stepped = 12
        log_plot(t, "mia/roc", lambda: Figure(figsize=(1, 1)))
        log_table(t, "memorization/moved_most", TABLE)
        return logger

    return give


def test_mlflow_has_a_file_for_each_step(given):
    plot, table = given(MLFlow()).experiment.calls
    assert plot == ("run 7", Figure, "mia/roc/step_000012.png")
    assert table == ("run 7", MARKDOWN, "memorization/moved_most/step_000012.md")


def test_comet_has_the_plot_at_its_step_and_a_file_for_each_table(given):
    plot, table = given(Comet()).experiment.calls
    assert plot == ("mia/roc", Figure, 12)
    assert table == ("memorization/moved_most/step_000012.csv", ROWS, ["member", "mia/reference"], {})


def test_wandb_has_an_image_and_a_table(given):
    plot, table = given(Wandb()).calls
    assert plot == ("mia/roc", np.uint8, 3, 12)
    assert table == ("memorization/moved_most", ["member", "mia/reference"], ROWS, 12)


def test_tensorboard_has_an_image_and_a_text(given, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = given(TensorBoardLogger(str(tmp_path)))
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Images("mia/roc")] == [12]
    (event,) = events.Tensors("memorization/moved_most/text_summary")
    assert (event.step, event.tensor_proto.string_val[0].decode()[: len(MARKDOWN)]) == (12, MARKDOWN)


def test_a_logger_that_shows_neither_is_left_alone(given, tmp_path):
    logger = given(CSVLogger(str(tmp_path)))
    assert logger.experiment.metrics == []


def test_kinds_are_the_classes_of_lightning():
    from lightning.pytorch import loggers

    assert all(hasattr(loggers, name) for name in KINDS)


def test_nothing_is_drawn_where_no_logger_shows_plots(trainer, tmp_path):
    drawn = []
    log_plot(trainer(logger=CSVLogger(str(tmp_path))), "mia/roc", lambda: drawn.append(1))
    assert drawn == []
