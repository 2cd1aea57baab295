"""Each run has its own folder, for any logger, with everything it writes."""

import json
import multiprocessing
import os
import threading
import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, PerExampleTable, Perplexity
from lit_mem.cli.run_config import RunConfig
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.lightning.find_checkpoint import find_checkpoint
from lit_mem.lightning.run_folder import claim_given_versions, claim_versions, known_folder, release, run_folder
from lit_mem.types import TokenScores


class Hosted(Logger):
    """Like W&B's and MLflow's loggers: metrics are stored remotely, there is no `log_dir`, and a run has an id."""

    def __init__(self, save_dir=None, name="notes", version=None):
        super().__init__()
        self._save_dir, self._name, self._version = save_dir, name, version

    save_dir = property(lambda self: self._save_dir)
    name = property(lambda self: self._name)
    version = property(lambda self: self._version)

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


class Dumped:
    """Replaces the command line's parser."""

    @staticmethod
    def dump(config, skip_none=False):
        return "model: {}\n"


class Own(pl.LightningModule):
    """A custom module that scores four texts."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        ids = torch.arange(4)
        logprob = -torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
        return TokenScores(logprob, logprob > -0.5, torch.ones(4, 3, dtype=torch.bool), ids, ids % 2 == 0)

    def on_validation_epoch_end(self):
        self.log("val/loss", 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(logger, folder, callbacks=(), **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*many workers|.*TensorBoard support")
        return pl.Trainer(
            accelerator="cpu", logger=logger, callbacks=list(callbacks), default_root_dir=folder, max_epochs=1,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), **options,
        )  # fmt: skip


def fitted(made):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*many workers|.*smaller than the logging interval|.*GPU available")
        made.fit(Own(), DataLoader([{"text": 0}]), DataLoader([{"text": 0}]))
    return made


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def everything():
    """The callbacks that write files, in the command line's order."""
    return [MembershipInference(), Perplexity(), PerExampleTable(), RunConfig(Dumped, {}), MemorizationCheckpoint()]


# -- claims ------------------------------------------------------------------------------------------------


def claim_many(folder, start, found):
    start.wait()
    for _ in range(20):
        made = trainer(CSVLogger(folder, name="mine"), folder)
        claim_versions(made)
        found.put(made.logger.version)


@pytest.mark.slow
def test_runs_started_together_claim_other_folders(tmp_path):
    """Three processes claim twenty versions each; none is assigned twice and none is skipped."""
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(3), context.Queue()
    processes = [context.Process(target=claim_many, args=(str(tmp_path), start, found)) for _ in range(3)]
    for process in processes:
        process.start()
    versions = [found.get(timeout=900) for _ in range(60)]
    for process in processes:
        process.join()
    assert sorted(versions) == list(range(60))
    assert len(list((tmp_path / "mine").iterdir())) == 60


def test_a_folder_that_is_made_between_look_and_claim_is_passed_over(tmp_path, monkeypatch):
    made = Path.mkdir

    def raced(path, *args, **kwargs):
        if path.name == "version_0" and not path.exists():
            made(path)
        made(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", raced)
    run = trainer(CSVLogger(tmp_path, name="mine"), tmp_path)
    claim_versions(run)
    assert run.logger.version == 1


def test_versions_go_on_from_the_highest_and_other_names_do_not_count(tmp_path):
    for name in ("version_3", "version_x", "version_", "tuesday"):
        (tmp_path / "mine" / name).mkdir(parents=True)
    run = trainer(CSVLogger(tmp_path, name="mine"), tmp_path)
    claim_versions(run)
    assert run.logger.version == 4


@pytest.mark.parametrize(
    ("given", "expected"), [((None, None), "version_0"), ((None, 7), "version_7"), (("a", None), "a")]
)
def test_tensorboard_and_csv_share_a_version(given, expected, tmp_path):
    board = TensorBoardLogger(tmp_path, "mine", given[0], default_hp_metric=False)
    run = trainer([board, CSVLogger(tmp_path, "mine", given[1])], tmp_path)
    claim_versions(run)
    assert [Path(logger.log_dir) for logger in run.loggers] == [tmp_path / "mine" / expected] * 2
    assert run_folder(run) == tmp_path / "mine" / expected


def test_loggers_with_other_folders_of_runs_count_for_themselves(tmp_path):
    (tmp_path / "b" / "version_5").mkdir(parents=True)
    run = trainer([CSVLogger(tmp_path, "a"), CSVLogger(tmp_path, "b"), CSVLogger(tmp_path, "")], tmp_path)
    claim_versions(run)
    assert [logger.version for logger in run.loggers] == [0, 6, 0]
    assert run_folder(run) == tmp_path / "a" / "version_0"


def test_other_ranks_claim_nothing(tmp_path, monkeypatch):
    run = trainer(CSVLogger(tmp_path, "mine"), tmp_path)
    monkeypatch.setattr(type(run.strategy), "local_rank", property(lambda self: 1), raising=False)
    claim_versions(run)
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_the_user_set_is_claimed_once(tmp_path):
    """Of two runs with the same version, sequential or concurrent, the second finds the first one's folder."""
    found = []
    barrier = threading.Barrier(4)

    def claim():
        run = trainer(CSVLogger(tmp_path, "mine", version="tuesday"), tmp_path)
        barrier.wait()
        found.append(claim_given_versions(run))

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(None) == 1
    assert found.count(tmp_path / "mine" / "tuesday") == 3


def test_a_folder_made_for_the_run_is_not_taken(tmp_path):
    """For example by a job script that writes its own output there."""
    (tmp_path / "mine" / "17").mkdir(parents=True)
    (tmp_path / "mine" / "17" / "out.txt").write_text("started")
    assert claim_given_versions(trainer(CSVLogger(tmp_path, "mine", version="17"), tmp_path)) is None


def test_what_a_failed_run_left_empty_is_removed(tmp_path):
    run = trainer(CSVLogger(tmp_path, "mine"), tmp_path)
    claim_versions(run)
    other = trainer(CSVLogger(tmp_path, "mine", version="b"), tmp_path)
    claim_given_versions(other)
    third = trainer(CSVLogger(tmp_path, "mine"), tmp_path)
    claim_versions(third)
    (tmp_path / "mine" / "version_1" / "kept.txt").write_text("figures")
    for each in (run, other, third):
        release(each)
    assert files(tmp_path) == ["mine/version_1/kept.txt"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["version_1"]


# -- file locations ----------------------------------------------------------------------------------------

WRITTEN = [
    "checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/safe.ckpt", "config.yaml",
    "examples/epoch_0001_step_000001.parquet", "facts.json", "memorization.jsonl", "run.json",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logger", "folders"),
    [
        (lambda n, d: Hosted(str(d), "notes", f"id{n}"), ["notes/id0", "notes/id1"]),  # W&B
        (lambda n, d: Hosted(None, "17", f"id{n}"), ["17/id0", "17/id1"]),  # MLflow with a server
        (lambda n, d: Hosted("s3://bucket/x", "notes", f"id{n}"), ["notes/id0", "notes/id1"]),
        (lambda n, d: Hosted(str(d), "notes", "same"), ["notes/same", "notes/same/attempt_1"]),  # a W&B run resumed
        (lambda n, d: Hosted(None, None, None), ["lit_mem/version_0", "lit_mem/version_1"]),
        (lambda n, d: Hosted(None, "notes", 3), ["notes/version_3", "notes/version_3/attempt_1"]),
    ],
)
def test_a_hosted_logger_has_a_folder_a_run(logger, folders, tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for n, folder in enumerate(folders):
        run = fitted(trainer(logger(n, tmp_path), tmp_path, everything()))
        assert run_folder(run) == tmp_path / folder
        assert [name for name in files(tmp_path / folder) if "attempt" not in name] == WRITTEN
        assert find_checkpoint(run, "last") == tmp_path / folder / "checkpoints" / "last.ckpt"
    assert len(files(tmp_path)) == len(folders) * len(WRITTEN)
    assert files(tmp_path / "cwd") == []


def test_a_folder_that_the_logger_has_made_itself_is_the_runs(tmp_path):
    """MLflow's logger creates the folder of the run first."""
    (tmp_path / "17" / "abc" / "metrics").mkdir(parents=True)
    assert run_folder(trainer(Hosted(str(tmp_path), "17", "abc"), tmp_path)) == tmp_path / "17" / "abc"


def test_a_csv_logger_beside_a_hosted_one_gives_the_folder(tmp_path):
    """All files for the report are in one folder."""
    loggers = [Hosted(str(tmp_path), "notes", "abc"), CSVLogger(tmp_path, "mine")]
    run = fitted(trainer(loggers, tmp_path, everything()))
    assert run_folder(run) == tmp_path / "mine" / "version_0"
    assert set(files(tmp_path)) == {f"mine/version_0/{name}" for name in [*WRITTEN, "metrics.csv"]}


def test_without_a_logger_runs_have_folders_too(tmp_path, monkeypatch):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for _ in range(2):
        fitted(trainer(False, tmp_path, everything()))
    names = [name for name in WRITTEN if "examples" not in name]  # which need a logger, as the log states
    assert files(tmp_path) == sorted(f"logs/lit_mem/version_{n}/{name}" for n in range(2) for name in names)


def test_a_run_that_writes_nothing_has_no_folder(tmp_path):
    run = fitted(trainer(False, tmp_path, [MembershipInference(), RunConfig(Dumped, {})]))
    assert known_folder(run) is None
    assert files(tmp_path) == []


def test_lightnings_own_checkpoints_lie_in_the_runs_folder_on_the_command_line(tmp_path):
    fitted(trainer(False, tmp_path, [RunConfig(Dumped, {}), ModelCheckpoint(filename="mine")]))
    written = ["checkpoints/mine.ckpt", "config.yaml", "run.json"]
    assert files(tmp_path) == [f"logs/lit_mem/version_0/{name}" for name in written]


@pytest.mark.parametrize("place", ["~/runs", "$HERE/runs"])
def test_a_home_folder_and_variables_are_put_in(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = trainer(TensorBoardLogger(place, "mine", sub_dir="x", default_hp_metric=False), tmp_path)
    claim_versions(run)
    assert run_folder(run) == tmp_path / "runs" / "mine" / "version_0"
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.parametrize("place", ["~/runs", "$HERE/runs"])
@pytest.mark.parametrize("version", [None, 7])
def test_a_csv_logger_writes_where_the_rest_of_the_run_lies(place, version, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = trainer(CSVLogger(place, "mine", version), tmp_path)
    claim_versions(run)
    folder = tmp_path / "runs" / "mine" / f"version_{version or 0}"
    assert run_folder(run) == folder
    run.logger.log_metrics({"val/loss": 1.0})
    run.logger.save()
    assert run.logger.log_dir == str(folder)
    assert files(tmp_path) == [f"runs/mine/version_{version or 0}/metrics.csv"]


class Ledger(pl.Callback):
    """Writes into the run's folder from the start of the fit, like a private module."""

    def on_fit_start(self, trainer, pl_module):
        (run_folder(trainer) / "privacy.jsonl").write_text("{}")


def test_a_run_that_writes_nothing_but_a_ledger_keeps_its_configuration(tmp_path):
    fitted(trainer(False, tmp_path, [RunConfig(Dumped, {}), Ledger()]))
    names = ("config.yaml", "privacy.jsonl", "run.json")
    assert files(tmp_path) == [f"logs/lit_mem/version_0/{name}" for name in names]


def test_a_fit_that_ends_before_training_is_known_as_one(tmp_path):
    class Stops(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            assert trainer.sanity_checking
            raise SystemExit(143)

    run = trainer(CSVLogger(tmp_path, "mine"), tmp_path, [RunConfig(Dumped, {}), Stops()])
    run.num_sanity_val_steps = 1
    with pytest.raises(SystemExit):
        fitted(run)
    assert json.loads((run_folder(run) / "run.json").read_text()) == {"schema": 1, "command": "fit", "from": None}


def test_callbacks_of_another_run_write_into_the_new_one(tmp_path):
    """Callbacks that are reused in Python keep neither folder nor best checkpoint of the previous run."""
    keeper = MemorizationCheckpoint()
    for n in range(2):
        fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, [keeper]))
        folder = tmp_path / "mine" / f"version_{n}" / "checkpoints"
        assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "safe.ckpt"}
        assert Path(keeper.best_model_path) == folder / "best.ckpt"


# -- which checkpoint is the best --------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1])
def test_best_and_last_are_those_under_the_thresholds(order, tmp_path):
    """Beside Lightning's own callback, in any order, for Lightning and for the command line."""
    plain = ModelCheckpoint(monitor="val/loss", filename="lowest")
    kept = MemorizationCheckpoint()
    run = fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, [plain, kept][:: 1 - 2 * order]))
    folder = tmp_path / "mine" / "version_0" / "checkpoints"
    assert run.checkpoint_callback is kept
    assert plain.best_model_path == str(folder / "lowest.ckpt")
    assert plain.last_model_path != kept.last_model_path == str(folder / "last.ckpt")
    assert find_checkpoint(run, "best") == folder / "best.ckpt"
    assert find_checkpoint(run, "last") == folder / "last.ckpt"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"save_last": True, "every_n_train_steps": 1}, "save_last is True"),
        ({"save_last": "link"}, "save_last is 'link'"),
        ({"filename": "safe"}, "filename is 'safe'"),
    ],
)
def test_files_of_the_same_names_are_rejected(options, named, tmp_path):
    both = [ModelCheckpoint(**{"filename": "mine"} | options), MemorizationCheckpoint()]
    with pytest.raises(ConfigError, match=f"^ModelCheckpoint.{named}, .*{named.split()[0]} or dirpath$"):
        fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, both))
    elsewhere = ModelCheckpoint(tmp_path / "elsewhere", filename="mine", save_last=True)
    fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, [elsewhere, MemorizationCheckpoint()]))


def test_none_under_the_thresholds_is_not_replaced_by_one_above(tmp_path):
    kept = MemorizationCheckpoint(thresholds=["val/loss > 0.5"])
    plain = ModelCheckpoint(monitor="val/loss", filename="lowest")
    run = fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, [plain, kept]))
    with pytest.raises(CheckpointError, match="had no validation under every threshold"):
        find_checkpoint(run, "best")


@pytest.mark.parametrize("name", ["best", "safe", "last"])
def test_another_callback_may_not_write_files_of_the_same_names(name, tmp_path):
    callbacks = [ModelCheckpoint(monitor="val/loss", filename=name), MemorizationCheckpoint()]
    with pytest.raises(
        ConfigError, match=rf"^ModelCheckpoint\.filename is '{name}', but MemorizationCheckpoint writes"
    ):
        fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, callbacks))
    elsewhere = ModelCheckpoint(tmp_path / "other", monitor="val/loss", filename=name)
    fitted(trainer(CSVLogger(tmp_path, "mine"), tmp_path, [elsewhere, MemorizationCheckpoint()]))
