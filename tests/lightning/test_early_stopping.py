"""MemorizationEarlyStopping, thresholds and the checkpoints under them, on scripted metrics."""

import math
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch
from scipy.stats import norm
from torch.utils.data import DataLoader

from lit_mem.attacks.loss import Loss
from lit_mem.audit.measure import Result
from lit_mem.audit.thresholds import Threshold
from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, MemorizationEarlyStopping
from lit_mem.errors import ConfigError
from lit_mem.lightning.measure_callback import Measure
from lit_mem.types import TokenScores

LOSS, AUROC = "val/loss", "mia/loss_auroc"
TWO = [f"{AUROC} > 0.6", f"{AUROC} > 0.9"]


class Scripted(pl.LightningModule):
    """Logs a scripted held-out loss."""

    def __init__(self, losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.losses = losses

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        n = torch.zeros(1, dtype=torch.int64)
        zeros = torch.zeros(1, 2)
        return TokenScores(zeros, zeros.bool(), zeros.bool(), n, n.bool())

    def on_validation_epoch_end(self):
        if not self.trainer.sanity_checking:
            self.log(LOSS, float(self.losses[self.trainer.current_epoch]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ScriptedMetrics(Measure):
    """Logs scripted metrics, one dictionary per epoch."""

    def __init__(self, script, names=None):
        self.script, self.known = script, names or sorted({name for row in script for name in row})

    def names(self):
        return self.known

    def compute(self, run):
        return Result({} if run.checking else self.script[run.epoch - 1])


def run(tmp_path, callbacks, epochs, losses=None, **kwargs):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
        callbacks=callbacks, max_epochs=epochs, num_sanity_val_steps=-1, default_root_dir=tmp_path, **kwargs,
    )  # fmt: skip
    loader = DataLoader(torch.zeros(4, 1), batch_size=2)
    trainer.fit(Scripted(losses or [1.0] * epochs), loader, loader)
    return trainer


def auroc(*values):
    return [{AUROC: v, f"{AUROC}_low": v - 0.1, f"{AUROC}_high": v + 0.1} for v in values]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("values", "options", "epochs"),
    [
        ([0.5, 0.7, 0.8], {}, 2),
        ([0.5, 0.5, 0.5], {}, 3),  # Lightning's own would stop a flat run by patience
        ([0.5, math.nan, 0.55], {}, 3),  # and stops on NaN
        ([0.6, 0.6, 0.6], {}, 3),  # a value at the limit does not exceed it
        ([0.7, 0.5, 0.7, 0.7], {"patience": 2}, 4),
        ([0.65, 0.65, 0.75], {"lower_bound": True}, 3),
    ],
)
def test_stops_after_the_right_epoch_in_any_order_of_callbacks(tmp_path, values, options, epochs, order):
    callbacks = [MemorizationEarlyStopping([f"{AUROC} > 0.6"], **options), ScriptedMetrics(auroc(*values))][::order]
    assert run(tmp_path, callbacks, len(values)).current_epoch == epochs


class Scored(Scripted):
    """`n` members, then `n` others, of one token each; all members are likelier, or all are equal."""

    def __init__(self, n, separation):
        super().__init__([1.0] * 2)
        self.n, self.separation = n, separation

    def validation_step(self, batch, batch_idx):
        member = torch.arange(2 * self.n) < self.n
        logprob = (self.separation * member.double() - 5)[:, None]
        ones = torch.ones(2 * self.n, 1).bool()
        return TokenScores(logprob, ones, ones, torch.arange(2 * self.n), member)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "separation", "threshold", "epochs"),
    [
        (3, 1.0, "> 0.6", 2),  # chance separates 3 and 3 in 1 of 20; [0.438, 1]
        (5, 1.0, "> 0.6", 2),  # [0.566, 1]
        (10, 1.0, "> 0.6", 1),  # in 1 of 184,756; [0.722, 1]
        (3, -1.0, "< 0.4", 2),  # [0, 0.562]
        (10, -1.0, "< 0.4", 1),  # [0, 0.278]
        (10, 0.0, "> 0.45", 2),  # all tied: [0.237, 0.763]
        (200, 0.0, "> 0.45", 2),  # [0.431, 0.569]
    ],
)
def test_by_lower_bound_perfect_separation_of_a_few_texts_is_no_certainty(tmp_path, n, separation, threshold, epochs):
    attack = MembershipInference({"loss": Loss()}, combined=False, plots=False)
    for lower_bound in (True, False):
        stop = MemorizationEarlyStopping([f"{AUROC} {threshold}"], lower_bound=lower_bound)
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=False, callbacks=[attack, stop], max_epochs=2, num_sanity_val_steps=0,
            default_root_dir=tmp_path,
        )  # fmt: skip
        loader = DataLoader(torch.zeros(1, 1))
        trainer.fit(Scored(n, separation), loader, loader)
        assert trainer.current_epoch == (epochs if lower_bound else 1)


@pytest.mark.parametrize(("stop_when", "epochs"), [("any", 2), ("all", 3)])
def test_any_or_all_thresholds(tmp_path, stop_when, epochs):
    script = [{"a": 0.0, "b": 9.0}, {"a": 1.0, "b": 9.0}, {"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}]
    stop = MemorizationEarlyStopping(["a > 0.5", "b < 3"], stop_when=stop_when)
    assert run(tmp_path, [ScriptedMetrics(script), stop], 4).current_epoch == epochs


def test_the_message_names_metric_value_threshold_and_checkpoints(tmp_path, capsys):
    keep = MemorizationCheckpoint(dirpath=str(tmp_path))
    callbacks = [MemorizationEarlyStopping([f"{AUROC} > 0.6"]), ScriptedMetrics(auroc(0.5, 0.55, 0.71234)), keep]
    run(tmp_path, callbacks, 3, losses=[1.0, 2.0, 0.5])
    out = capsys.readouterr().out
    assert f"stopped after epoch 3: {AUROC} is 0.7123, the threshold is {AUROC} > 0.6" in out
    assert f"Best checkpoint under every threshold (epoch 1, val/loss 1): {tmp_path}/best.ckpt" in out
    assert f"Last checkpoint under every threshold (epoch 2): {tmp_path}/safe.ckpt" in out
    assert f"to resume from (epoch 3): {tmp_path}/last.ckpt" in out
    epochs = {n: torch.load(tmp_path / f"{n}.ckpt", weights_only=True)["epoch"] for n in ("best", "safe", "last")}
    assert epochs == {"best": 0, "safe": 1, "last": 2}


def test_no_checkpoint_is_best_when_none_is_under_the_thresholds(tmp_path, capsys):
    keep = MemorizationCheckpoint([f"{AUROC} > 0.6"], dirpath=str(tmp_path))
    run(tmp_path, [ScriptedMetrics(auroc(0.7, 0.8)), keep], 2)
    assert "no validation was under every threshold" in capsys.readouterr().out
    assert not (tmp_path / "best.ckpt").exists()
    assert (tmp_path / "last.ckpt").exists()


def test_a_misspelt_name_is_rejected_before_training_with_the_known_names(module, data, trainer):
    stop = MemorizationEarlyStopping(["mia/los_auroc > 0.6"])
    model = module()
    with pytest.raises(ConfigError, match=r"did you mean 'mia/loss_auroc'\?.*Logged metrics: .*mia/loss_auroc, "):
        trainer([MembershipInference(), stop]).fit(model, data())
    assert model._model is None  # rejected before the model was loaded


def test_a_name_that_user_code_may_log_is_rejected_once_it_is_missing(tmp_path):
    stop = MemorizationEarlyStopping(["mine/accuracy > 0.6"])
    with pytest.raises(ConfigError, match="'mine/accuracy' was not logged; logged metrics: mia/loss_auroc, "):
        run(tmp_path, [ScriptedMetrics(auroc(0.5)), stop], 1)


def test_two_measures_that_log_the_same_names_are_rejected(tmp_path):
    with pytest.raises(ConfigError, match="both log 'mia/loss_auroc'"):
        run(tmp_path, [ScriptedMetrics(auroc(0.5)), ScriptedMetrics(auroc(0.5))], 1)


def test_a_name_that_is_known_but_not_measured_this_time_passes_nothing(tmp_path):
    script = [{AUROC: 0.9}, {}, {}]
    stop = MemorizationEarlyStopping([f"{AUROC} > 0.6"], patience=2)
    assert run(tmp_path, [ScriptedMetrics(script), stop], 3).current_epoch == 3


@pytest.mark.parametrize(
    ("options", "looks", "said"),
    [
        ({"lower_bound": True}, 3, "5 % of runs, over 4 validations"),
        ({"thresholds": [f"{AUROC} > 0.6", f"{AUROC} > 0.9"], "lower_bound": True}, 3, "2 thresholds at 4 validations"),
        ({"thresholds": [f"{AUROC} > 0.6", f"{AUROC} > 0.9"], "lower_bound": True}, 1, "2 thresholds at 2 validations"),
        ({"lower_bound": True}, 1, "5 % of runs, over 2 validations"),
        ({}, 3, None),
    ],
)
def test_the_end_by_a_lower_bound_says_how_certain_it_is(tmp_path, capsys, options, looks, said):
    stop = MemorizationEarlyStopping(**{"thresholds": [f"{AUROC} > 0.6"], **options})
    metrics = auroc(*[0.5] * (looks - 1), 0.85, 0.85)
    run(tmp_path, [ScriptedMetrics(metrics), stop], looks + 1)
    line = next(line for line in capsys.readouterr().out.splitlines() if "Training was stopped" in line)
    assert f"after epoch {looks}: " in line
    assert stop.state_dict()["looks"] == looks
    assert said in line if said else line.endswith("> 0.6.")


class WithIntervals(ScriptedMetrics):
    """Logs an AUROC of 0.7 with an interval of ± z / 50 at any level, and records the levels."""

    levels: ClassVar[list[float]] = []

    def compute(self, run):
        def interval(level):
            if level != 0.95:
                self.levels.append(level)
            half = norm.ppf(0.5 + level / 2) / 50
            return 0.7 - half, 0.7 + half

        return Result({} if run.checking else {AUROC: 0.7}, intervals={} if run.checking else {AUROC: interval})


@pytest.mark.parametrize(("epochs", "n"), [(1, 1), (3, 1), (4, 3)])
def test_a_safe_end_is_read_at_the_level_that_all_looks_and_thresholds_leave(tmp_path, epochs, n):
    WithIntervals.levels.clear()
    limits = [*[0.9, 0.95, 0.99][: n - 1], 0.7 - norm.ppf(1 - 0.05 / (n * epochs)) / 50]
    stop = MemorizationEarlyStopping([f"{AUROC} > {limit + 1e-6}" for limit in limits], lower_bound=True)
    measure = WithIntervals([{}] * epochs, [AUROC, f"{AUROC}_low", f"{AUROC}_high"])
    run(tmp_path, [measure, stop], epochs)
    assert stop.reason is None
    assert WithIntervals.levels == pytest.approx([1 - 2 * 0.05 / (n * epochs)] * n * epochs)
    stop = MemorizationEarlyStopping([f"{AUROC} > {limit - 1e-6}" for limit in limits], lower_bound=True)
    run(tmp_path, [measure, stop], epochs)
    assert stop.stopped_after == 1
    assert f"{AUROC}_low is " in stop.reason


@pytest.mark.parametrize(
    ("options", "looks"),
    [
        ({"max_epochs": 3}, 3),
        ({"max_epochs": 4, "check_val_every_n_epoch": 2}, 2),
        ({"max_epochs": 3, "val_check_interval": 0.5}, 6),
        ({"max_epochs": 3, "val_check_interval": 1, "check_val_every_n_epoch": None}, 6),
        ({"max_epochs": -1, "max_steps": 4}, 2),
        ({"max_epochs": 9, "max_steps": 6}, 3),
        ({"max_epochs": 3, "limit_train_batches": 1}, 3),
    ],
)
def test_the_looks_of_a_fit_are_known_before_it(tmp_path, options, looks):
    stop = MemorizationEarlyStopping(["val/loss < -1"], lower_bound=True)
    epochs = options.pop("max_epochs")
    run(tmp_path, [ScriptedMetrics([{AUROC: 0.5}] * 9), stop], epochs, [1.0] * 9, **options)
    assert (stop.planned, stop.looks) == (looks, looks)


def test_counting_goes_on_after_a_resume():
    stop = MemorizationEarlyStopping(["a > 1"], lower_bound=True, patience=3)
    stop.planned = 5
    for over in (False, True, True):
        stop.count(over, [])
    again = MemorizationEarlyStopping(["a > 1"], lower_bound=True, patience=3)
    again.load_state_dict(stop.state_dict())
    again.planned = 5
    assert (again.over_in_a_row, again.looks, again.level) == (2, 3, stop.level)
    assert stop.level == pytest.approx(1 - 2 * 0.05 / 5)
    assert stop.state_key != MemorizationEarlyStopping(["a > 2"]).state_key


@pytest.mark.parametrize("text", ["mia/x", "mia/x > ", "mia/x >= 0.5", "mia/x > high", "> 3", "a > nan", "a > inf"])
def test_a_malformed_threshold_is_rejected(text):
    with pytest.raises(ConfigError, match="is not of the form"):
        Threshold.parse(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"thresholds": []}, "thresholds is empty"), ({"thresholds": ["a > 1"], "patience": 0}, "patience is 0")],
)
def test_invalid_options_are_rejected(arguments, message):
    with pytest.raises(ConfigError, match=message):
        MemorizationEarlyStopping(**arguments)
