"""A resumed run is bit-identical to the uninterrupted one, for any point of interruption and any options."""

import shutil
import time

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lit_mem.attacks import Loss, ReferenceRatio
from lit_mem.callbacks import (
    Baseline,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    Perplexity,
    PerplexityDropWarning,
    Slices,
    SpanExtraction,
)
from lit_mem.errors import CheckpointError
from lit_mem.lightning.find_checkpoint import find_checkpoint
from lit_mem.lightning.resumable_loader import ResumableLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
]

NEVER = ["val/loss > 100", "memorization/perplexity_members < 0"]


class Trace(Callback):
    """A run's batches and their results: (epoch, batch) -> (examples, loss, learning rate)."""

    def __init__(self):
        self.batches = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        known = (tuple(batch["example_id"].tolist()), float(outputs["loss"]), rate)
        self.batches[trainer.current_epoch, batch_idx] = known


class Die(Callback):
    """Ends a run one batch after its n-th checkpoint, like a kill."""

    def __init__(self, checkpoints):
        self.left = checkpoints

    def on_validation_end(self, trainer, pl_module):
        self.left -= not trainer.sanity_checking

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.left <= 0:
            raise SystemExit


def callbacks(folder, which, *more):
    keep = [MemorizationEarlyStopping(NEVER, patience=2), MemorizationCheckpoint(dirpath=str(folder))]
    if which == "few":
        return [Perplexity(), *keep, *more]
    everything = which == "all"
    attacks = {"loss": Loss(), "reference": ReferenceRatio()}
    return [
        Perplexity(),
        MembershipInference(None if everything else attacks, plots=False),
        Extraction(n_members=3, n_heldout=3, base=everything, every_n_validations=2),
        *([Extractability(), SpanExtraction(), Slices(min_size=2, plots=False)] if everything else []),
        Correlation(plots=False),
        Movers(),
        PerplexityDropWarning(share=0.99),
        Baseline(),
        *keep,
        *more,
    ]


@pytest.fixture
def run(module, data, trainer, trained):
    """Runs a part of a fit: `run(folder, part, die_after=…, from_checkpoint=…)`; returns its results."""

    class Ran:
        pass

    def fit(folder, part=0, die_after=None, resume=False, model=None, sizes=None, more=(), which="few", **kwargs):
        ran = Ran()
        ran.trace, ran.callbacks = Trace(), callbacks(folder / "checkpoints", which, *more)
        die = [] if die_after is None else [Die(die_after)]
        torch.manual_seed(1 if part == 0 else 1000 + part)  # a new process has another random state
        logger = CSVLogger(str(folder / "logs"), "quickstart", part)
        options = {"max_epochs": 3, "num_sanity_val_steps": 0, "logger": logger}
        ran.module = module(**(model or {}))
        ran.trainer = trainer([ran.trace, *ran.callbacks, *die], **options | kwargs)
        last = folder / "checkpoints" / "last.ckpt"
        begin = {"ckpt_path": str(last), "weights_only": True} if resume else {}
        try:
            ran.trainer.fit(ran.module, data(**SIZES | (sizes or {})), **begin)
            assert die_after is None
        except SystemExit:
            assert die_after is not None
        ran.weights = trained(ran.module)
        ran.states = {type(c).__name__: c.state_dict() for c in ran.callbacks}
        return ran

    return fit


def comparable(value):
    if isinstance(value, dict):
        return {key: comparable(inner) for key, inner in value.items() if "path" not in str(key)}
    return value.tolist() if isinstance(value, torch.Tensor) else value


LINEAR = {"lr_schedule": "linear"}
COSINE = {"lr_schedule": "cosine", "warmup_fraction": 0.2}
SIZES = {"train_size": 12, "batch_size": 2, "heldout_size": 4, "max_length": 24}
"""Six batches per epoch."""

WAYS = {
    "epoch end": {},
    "amid an epoch": {"val_check_interval": 0.5, "model": LINEAR},
    "amid an epoch, constant": {"val_check_interval": 0.34},
    "amid a step": {"val_check_interval": 0.5, "accumulate_grad_batches": 2, "model": LINEAR},
    "steps of several batches": {"accumulate_grad_batches": 4, "model": COSINE},
    "across epochs": {"val_check_interval": 4, "check_val_every_n_epoch": None},
    "every second epoch": {"check_val_every_n_epoch": 2, "max_epochs": 7},
    "by steps": {"max_steps": 15, "max_epochs": -1, "val_check_interval": 2},
    "by length": {"val_check_interval": 0.5, "sizes": {"group_by_length": True}},
    "clipped": {"val_check_interval": 0.5, "gradient_clip_val": 0.1, "model": LINEAR},
    "workers": {"val_check_interval": 0.5, "sizes": {"num_workers": 2}},
    "all callbacks": {"val_check_interval": 0.5, "which": "all", "sizes": {"train_size": 24, "max_length": 48}},
}
QUICK = ("amid a step",)


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[] if way in QUICK else pytest.mark.slow, id=way.replace(" ", "_")) for way in WAYS]
)
def test_a_run_resumed_twice_is_the_uninterrupted_one(run, left, tmp_path, way):
    options = {"which": "some"} | WAYS[way]
    whole = run(tmp_path / "whole", **options)
    parts = [
        run(tmp_path / "parts", 0, die_after=1, **options),
        run(tmp_path / "parts", 1, die_after=1, resume=True, **options),
        run(tmp_path / "parts", 2, resume=True, **options),
    ]
    together = {}
    for part in parts:
        for key, known in part.trace.batches.items():
            assert together.setdefault(key, known) == known == whole.trace.batches[key], key
    assert together.keys() == whole.trace.batches.keys()
    assert min(parts[1].trace.batches) > min(parts[0].trace.batches)  # it resumed instead of starting over
    assert min(parts[2].trace.batches) > min(parts[1].trace.batches)
    assert left.same(parts[2].weights, whole.weights)
    assert left.recorded(tmp_path / "parts") == left.recorded(tmp_path / "whole")
    assert comparable(parts[2].states) == comparable(whole.states)
    for which in ("best", "safe", "last"):
        mine, theirs = (left.weights(tmp_path / name / "checkpoints" / f"{which}.ckpt") for name in ("parts", "whole"))
        assert left.same(mine, theirs), which


# -- finished runs -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_early_stopping_goes_on_counting(run, left, tmp_path, capsys):
    def stop():
        return {"max_epochs": 5, "more": [MemorizationEarlyStopping(["val/loss > 0"], patience=3)]}

    whole = run(tmp_path / "whole", **stop())
    said = capsys.readouterr().out
    run(tmp_path / "parts", 0, die_after=2, **stop())
    parts = run(tmp_path / "parts", 1, resume=True, **stop())
    assert "Training was stopped after epoch 3: val/loss is " in said
    assert said.splitlines()[0] in capsys.readouterr().out
    assert left.same(parts.weights, whole.weights)
    assert parts.trainer.current_epoch == whole.trainer.current_epoch == 3
    assert parts.callbacks[-1].reason == whole.callbacks[-1].reason is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("again", "steps"),
    [
        ({}, 0),
        pytest.param({"patience": 3}, 6, marks=pytest.mark.slow),  # one more in a row
        pytest.param({"thresholds": ["val/loss > 99"]}, 18, marks=pytest.mark.slow),
    ],
    ids=["as it was", "more patience", "another threshold"],
)
def test_a_run_that_was_stopped_trains_no_more_unless_the_limit_is_another(run, left, tmp_path, capsys, again, steps):
    options = {"thresholds": ["val/loss > 0"], "patience": 2}
    first = run(tmp_path, 0, more=[MemorizationEarlyStopping(**options)], max_epochs=5)
    before = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    said = [line for line in capsys.readouterr().out.splitlines() if "stopped" in line]
    stop = MemorizationEarlyStopping(**options | again)
    second = run(tmp_path, 1, resume=True, more=[stop], max_epochs=5)
    assert len(second.trace.batches) == steps
    if not steps:
        assert left.same(second.weights, first.weights)
        out = capsys.readouterr().out
        assert said[0] in out
        assert "Last checkpoint, to resume from (epoch 2): " in out
        assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_run_that_had_ended_trains_no_more(run, left, tmp_path):
    first = run(tmp_path, 0)
    before = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    second = run(tmp_path, 1, resume=True)
    assert not second.trace.batches
    assert left.same(second.weights, first.weights)
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "logged"), [("linear", True), ("constant", False)])
def test_more_epochs_are_logged_if_they_change_the_learning_rate(run, tmp_path, caplog, schedule, logged):
    model = {"lr_schedule": schedule}
    run(tmp_path, 0, model=model, max_epochs=2)
    longer = run(tmp_path, 1, resume=True, model=model, max_epochs=4)
    assert len(longer.trace.batches) == 12
    message = "model.lr_schedule linear spanned 12 steps in the resumed run, and spans 24 now"
    assert (message in caplog.text) == logged
    first_rate = longer.trace.batches[2, 0][2]
    assert first_rate == pytest.approx(5e-3 * (1 - 13 / 24) if logged else 5e-3)


@pytest.mark.slow
def test_another_shape_of_the_schedule_is_rejected(run, tmp_path):
    """Resumed at the end of a linear schedule, a constant learning rate would be 0."""
    run(tmp_path, 0, model=LINEAR)
    with pytest.raises(CheckpointError, match="lr_schedule linear, but this one has constant"):
        run(tmp_path, 1, resume=True, model={"lr_schedule": "constant"}, max_epochs=4)


@pytest.mark.slow
def test_fewer_epochs_than_were_trained_are_rejected(run, tmp_path):
    run(tmp_path, 0, max_epochs=3)
    with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match="max_epochs=1"):
        run(tmp_path, 1, resume=True, max_epochs=1)


@pytest.mark.slow
def test_without_validations_the_end_is_kept_and_resumed(module, data, trainer, trained, tmp_path, capsys):
    options = {"limit_val_batches": 0, "num_sanity_val_steps": 0}

    def fit(epochs, folder, **kwargs):
        torch.manual_seed(1)
        model = module(lr_schedule="constant")  # the others depend on the number of epochs
        keep = MemorizationCheckpoint(dirpath=str(folder))
        trainer([keep], max_epochs=epochs, **options).fit(model, data(**SIZES), **kwargs)
        return trained(model)

    whole = fit(3, tmp_path / "whole")
    assert "Last checkpoint, to resume from (epoch 3): " in capsys.readouterr().out
    fit(2, tmp_path / "parts")
    last = tmp_path / "parts" / "last.ckpt"
    before = torch.load(last, weights_only=True)["global_step"]
    resumed = fit(3, tmp_path / "parts", ckpt_path=str(last), weights_only=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert torch.load(last, weights_only=True)["global_step"] == before // 2 * 3


# -- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_checkpoint_that_was_only_measured_has_no_part_in_a_later_fit(module, data, trainer, trained, tmp_path):
    trainer([Perplexity(), MemorizationCheckpoint(dirpath=str(tmp_path))], max_epochs=1).fit(module(), data(**SIZES))

    def fit_after(measured):
        model = module()
        model.configure_model()
        if measured:
            first = {name: value.clone() for name, value in model.state_dict().items()}
            trainer([Perplexity()]).validate(
                model, data(**SIZES), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True
            )
            model.load_state_dict(first)
        torch.manual_seed(3)
        trainer([]).fit(model, data(**SIZES))
        return trained(model)

    torch.manual_seed(2)
    expected = fit_after(False)
    torch.manual_seed(2)
    after = fit_after(True)
    assert all(torch.equal(after[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_a_loader_of_ones_own_is_whole_while_a_resumed_epoch_is_not(run, tmp_path):
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            loader = trainer.datamodule.train_dataloader()
            assert isinstance(loader, ResumableLoader)
            seen.append(len(list(loader)))

    run(tmp_path, 0, die_after=1, val_check_interval=0.5)
    run(tmp_path, 1, die_after=1, resume=True, val_check_interval=0.5, more=[Looks()])
    assert seen
    assert set(seen) == {6}


def test_a_loader_without_a_trainer_does_not_claim_to_be_resumable(data):
    loose = data()
    loose.tokenizer_id = "asset:tiny_llama"
    loose.setup("fit")
    loader = loose.train_dataloader()
    assert type(loader) is DataLoader


# -- --ckpt_path last and best ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoints(module, data, trainer, tmp_path_factory):
    """A folder with the checkpoints of two epochs, the first of which is the best."""
    folder = tmp_path_factory.mktemp("checkpoints")
    keep = MemorizationCheckpoint(dirpath=str(folder), monitor="val/loss", mode="max")
    trainer([Perplexity(), keep], max_epochs=2).fit(module(), data(train_size=6, heldout_size=4))
    return folder


def keeper(folder=None):
    return MemorizationCheckpoint(dirpath=None if folder is None else str(folder))


def with_logger(folder, kind=CSVLogger, **kwargs):
    return pl.Trainer(
        accelerator="cpu", logger=kind(str(folder), **{"name": "mine"} | kwargs), callbacks=[keeper()],
        default_root_dir=folder,
    )  # fmt: skip


def test_last_is_the_newest_of_all_runs_of_that_name(checkpoints, tmp_path):
    for n, name in enumerate(("version_0", "version_2", "version_1", "tuesday")):
        shutil.copytree(checkpoints, tmp_path / "mine" / name / "checkpoints")
        for path in (tmp_path / "mine" / name / "checkpoints").iterdir():
            path.touch()
        if n < 3:
            time.sleep(0.02)
            newest = tmp_path / "mine" / "version_1" / "checkpoints"
            assert n < 2 or find_checkpoint(with_logger(tmp_path), "last") == newest / "last.ckpt"
    (tmp_path / "mine" / "version_9" / "checkpoints").mkdir(parents=True)  # killed before its first checkpoint
    shutil.copytree(checkpoints, tmp_path / "other" / "version_0" / "checkpoints")
    newest = tmp_path / "mine" / "tuesday" / "checkpoints"
    assert find_checkpoint(with_logger(tmp_path), "last") == newest / "last.ckpt"


def test_last_is_found_in_the_callback_s_folder(checkpoints, tmp_path):
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[keeper(checkpoints)], default_root_dir=tmp_path)
    assert find_checkpoint(trainer, "last") == checkpoints / "last.ckpt"
    shutil.copytree(checkpoints, tmp_path / "logs" / "lit_mem" / "version_0" / "checkpoints")
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[keeper()], default_root_dir=tmp_path)
    assert find_checkpoint(trainer, "last") == tmp_path / "logs" / "lit_mem" / "version_0" / "checkpoints" / "last.ckpt"


def test_best_is_what_the_newest_run_says_it_is(checkpoints, tmp_path):
    runs = tmp_path / "mine"
    shutil.copytree(checkpoints, runs / "version_0" / "checkpoints")
    assert find_checkpoint(with_logger(tmp_path), "best") == checkpoints / "best.ckpt"  # at its original path
    content = torch.load(checkpoints / "last.ckpt", weights_only=True)
    (state,) = [state for state in content["callbacks"].values() if "best_model_path" in state]
    (runs / "version_1" / "checkpoints").mkdir(parents=True)
    for path, expected in (
        (runs / "gone" / "best.ckpt", "no longer exists"),
        ("", "had no validation under every threshold"),
    ):
        state["best_model_path"] = str(path)
        torch.save(content, runs / "version_1" / "checkpoints" / "last.ckpt")
        with pytest.raises(CheckpointError, match=expected):
            find_checkpoint(with_logger(tmp_path), "best")
    (runs / "version_1" / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"version_1/checkpoints/last\.ckpt is damaged"):
        find_checkpoint(with_logger(tmp_path), "best")


def test_best_moves_with_its_folder(checkpoints, tmp_path):
    there = tmp_path / "mine" / "version_0" / "checkpoints"
    shutil.copytree(checkpoints, there)
    content = torch.load(there / "last.ckpt", weights_only=True)
    for state in content["callbacks"].values():
        if "best_model_path" in state:
            state["best_model_path"] = "elsewhere/best.ckpt"
    torch.save(content, there / "last.ckpt")
    assert find_checkpoint(with_logger(tmp_path), "best") == there / "best.ckpt"


@pytest.mark.parametrize("which", ["last", "best"])
def test_none_is_a_clear_error(tmp_path, which):
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(with_logger(tmp_path), which)
    assert str(error.value) == f"ckpt_path {which}: found no {tmp_path}/mine/*/checkpoints/last.ckpt"
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[ModelCheckpoint(tmp_path / "here")])
    with pytest.raises(CheckpointError, match=r"here/last\.ckpt"):
        find_checkpoint(trainer, which)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_command_line_resumes_the_newest_run_and_measures_the_best(
    start, run_to_end, uninterrupted, left, tmp_path
):
    expected, _ = uninterrupted()
    folder = tmp_path / "run"
    process = start(folder, "--ckpt_path", "last")
    assert process.wait() == 2
    assert process.output.splitlines()[-1] == (
        "error: ckpt_path last: found no logs/quickstart/*/checkpoints/last.ckpt"
    )
    shutil.copytree(expected / "logs", folder / "logs")
    said = run_to_end(folder, "--ckpt_path", "last", "--trainer.max_epochs", "4")
    assert "The last checkpoint is logs/quickstart/version_0/checkpoints/last.ckpt." in said
    assert left.final_state(folder)["global_step"] == 16
    said = run_to_end(folder, "--ckpt_path", "best", subcommand="validate")
    assert "The best checkpoint is logs/quickstart/version_" in said
