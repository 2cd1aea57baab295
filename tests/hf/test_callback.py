"""User-visible behaviour of the callback: metrics, the best checkpoint, and early stopping."""

import logging
import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import EarlyStoppingCallback

from lit_mem.errors import ConfigError
from lit_mem.files import record
from lit_mem.hf import MemorizationCallback
from lit_mem.hf.planned import planned_looks
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer
from tests.hf.conftest import TINY, tokenized

AUROC = "mia/reference_auroc"


def logged(trainer, name=AUROC):
    return [(row["step"], row[name]) for row in trainer.state.log_history if name in row]


def lines(trainer):
    found, notes = record.read(record_path(trainer))
    assert not notes
    return found


def record_path(trainer):
    from pathlib import Path

    return Path(trainer.args.output_dir) / "memorization" / record.FILE


def test_a_class_among_the_callbacks_measures_before_training_and_at_each_evaluation(trainer):
    made = trainer(num_train_epochs=2)
    made.add_callback(MemorizationCallback)
    made.train()
    assert [step for step, _ in logged(made)] == [0, 4, 8]
    assert logged(made)[0][1] == 0.5 < logged(made)[-1][1]
    assert [(line.stage, line.epoch, line.step, line.members, line.heldout) for line in lines(made)] == [
        ("fit", 0, 0, 16, 12), ("fit", 1, 4, 16, 12), ("fit", 2, 8, 16, 12),
    ]  # fmt: skip
    assert [line.metrics[AUROC] for line in lines(made)] == [value for _, value in logged(made)]
    assert "extraction/ngram_rate" in lines(made)[-1].metrics


@pytest.mark.parametrize(
    ("options", "settings", "steps"),
    [
        ({"every_n_steps": 3}, {}, [0, 3, 6]),
        ({"every_n_steps": 3}, {"logging_steps": 3, "eval_strategy": "no"}, [0, 3, 6]),
        ({"every_n_epochs": 2}, {"num_train_epochs": 4, "eval_strategy": "no"}, [0, 8, 16]),
        ({}, {"eval_strategy": "no"}, [0, 4, 8]),
        ({}, {"eval_strategy": "steps", "eval_steps": 3}, [0, 3, 6, 8]),
        ({}, {"eval_on_start": True, "max_steps": 3, "eval_strategy": "no"}, [0, 3]),
        ({"before_training": False}, {"eval_on_start": True}, [0, 4, 8]),
        ({"before_training": False}, {}, [4, 8]),
        ({}, {"gradient_accumulation_steps": 2}, [0, 2, 4]),
    ],
)
@pytest.mark.slow
@pytest.mark.exhaustive
def test_when_it_measures(trainer, callback, options, settings, steps):
    made = trainer(callback(**options), **{"num_train_epochs": 2} | settings)
    made.train()
    assert [line.step for line in lines(made)] == steps
    assert [line.epoch == 0 for line in lines(made)] == [step == 0 for step in steps]


@pytest.mark.parametrize(
    ("options", "settings", "passes"),
    [
        ({"every_n_steps": 3}, {}, 2),
        ({"every_n_steps": 3}, {"metric_for_best_model": f"eval_{AUROC}"}, 4),  # at evaluations too
        ({"every_n_epochs": 2}, {"eval_strategy": "no"}, 1),
        ({}, {"eval_strategy": "no"}, 2),
        ({}, {"eval_strategy": "steps", "eval_steps": 3}, 3),
        ({}, {"eval_strategy": "steps", "eval_steps": 0.25}, 4),
        ({}, {}, 2),
    ],
)
def test_passes_are_planned_before_training(trainer, callback, options, settings, passes):
    """The error probability is shared among them; one more pass may follow at the end of training."""
    made = trainer(callback(**options), **settings)
    made.state.max_steps, made.state.num_train_epochs = 8, 2
    assert planned_looks(made, options.get("every_n_steps"), options.get("every_n_epochs")) == passes + 1
    made.state.max_steps = 0
    assert planned_looks(made, None, None) is None


def test_how_sure_a_stop_is_is_logged(trainer, callback, caplog):
    made = trainer(callback(stop=[f"{AUROC} > 0.01"], lower_bound=True), num_train_epochs=3)
    with caplog.at_level(logging.INFO, "lit_mem"):
        made.train()
    assert made.state.global_step == 4
    assert "5 % of runs, over 4 validations together" in next(m for m in caplog.messages if "was stopped" in m)


@pytest.mark.slow
def test_every_loss_of_training_is_logged_where_it_also_measures(trainer, callback):
    made = trainer(callback(every_n_steps=2), num_train_epochs=2)
    made.train()
    assert [step for step, _ in logged(made, "loss")] == list(range(1, 9))


@pytest.mark.slow
def test_best_checkpoint_by_a_metric_of_memorization(trainer, callback):
    made = trainer(
        callback(),
        num_train_epochs=3,
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{AUROC}",
        greater_is_better=False,
    )
    made.train()
    values = logged(made)[1:]
    step, value = min(values, key=lambda one: one[1])
    assert (made.state.best_metric, made.state.best_model_checkpoint) == (
        value,
        f"{made.args.output_dir}/checkpoint-{step}",
    )


@pytest.mark.slow
def test_early_stopping_before_it_in_the_list_reads_its_metrics(trainer, callback):
    settings = {"metric_for_best_model": AUROC, "greater_is_better": False, "load_best_model_at_end": True}
    early = EarlyStoppingCallback(early_stopping_patience=1)
    made = trainer(early, callback(), num_train_epochs=5, save_strategy="epoch", **settings)
    made.train()
    values = [value for _, value in logged(made)[1:]]
    assert values[-1] >= min(values[:-1]) > 0.5  # the last did not improve, each before it did
    assert values[:-1] == sorted(set(values[:-1]), reverse=True)


@pytest.mark.slow
def test_a_scheduler_and_the_best_model_read_metrics_of_the_same_step(trainer, callback):
    made = trainer(
        callback(every_n_steps=3),
        num_train_epochs=2,
        eval_strategy="steps",
        eval_steps=2,
        lr_scheduler_type="reduce_lr_on_plateau",
        lr_scheduler_kwargs={"patience": 0},
        metric_for_best_model=AUROC,
        greater_is_better=False,
    )
    made.train()
    assert [line.step for line in lines(made)] == [0, 2, 3, 4, 6, 8]
    assert made.state.best_metric == min(v for step, v in logged(made) if step in (2, 4, 6, 8))
    assert made.optimizer.param_groups[0]["lr"] < 5e-3


@pytest.mark.slow
def test_metrics_of_an_evaluation_outside_training(trainer, callback, heldout_texts):
    measured = callback()
    made = trainer(measured)
    before = made.evaluate()
    assert before[f"eval_{AUROC}"] == 0.5
    assert before["eval_val/loss"] == pytest.approx(before["eval_loss"], abs=0.05)
    made.train()
    after = made.evaluate()
    assert after[f"eval_{AUROC}"] == logged(made)[-1][1] > 0.5
    other = tokenized(load_tokenizer(TINY), heldout_texts[:3])
    assert made.evaluate(other)[f"eval_{AUROC}"] == after[f"eval_{AUROC}"]
    assert made.evaluate(metric_key_prefix="test")[f"test_{AUROC}"] == after[f"eval_{AUROC}"]
    assert set(made.predict(other).metrics) == {
        "test_loss", "test_runtime", "test_samples_per_second", "test_steps_per_second", "test_model_preparation_time",
    } & set(made.predict(other).metrics)  # fmt: skip
    with torch.no_grad():  # another model in the same trainer is measured again
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert made.evaluate()[f"eval_{AUROC}"] == 0.5
    assert [line.stage for line in lines(made)[:2]] == ["fit", "fit"]


@pytest.mark.slow
def test_several_evaluation_sets_are_one_pass(trainer, callback, heldout_texts):
    tokenizer = load_tokenizer(TINY)
    sets = {"a": tokenized(tokenizer, heldout_texts[:6]), "b": tokenized(tokenizer, heldout_texts[6:])}
    made = trainer(callback(), heldout=sets)
    made.train()
    assert [(line.step, line.heldout) for line in lines(made)] == [(0, 6), (4, 6)]
    found = made.evaluate()
    assert {f"eval_{AUROC}", "eval_a_loss", "eval_b_loss"} <= set(found)
    assert len(lines(made)) == 3


def test_a_limit_ends_training_at_once_and_the_reason_is_logged(trainer, callback, caplog):
    made = trainer(callback(stop=f"{AUROC} > 0.55", every_n_steps=1), num_train_epochs=9)
    with caplog.at_level(logging.INFO, "lit_mem"):
        made.train()
    step, value = next((step, value) for step, value in logged(made) if value > 0.55)
    assert made.state.global_step == step < 36
    reason = f"Training was stopped at step {step}: {AUROC} is {value:.4g}, the threshold is {AUROC} > 0.55."
    assert reason in caplog.messages
    assert [m for m in caplog.messages if m.startswith(("Over the limits", "Undecided"))]
    assert lines(made)[-1].stop == [record.Stop("stop", [f"{AUROC} > 0.55"], "any", False)]


@pytest.mark.parametrize(
    ("options", "stopped"),
    [
        ({"stop": [f"{AUROC} > 0.51", "val/loss > 0"], "stop_when": "any"}, 1),
        ({"stop": [f"{AUROC} > 1", "val/loss > 0"], "stop_when": "all"}, 8),
        ({"stop": ["val/loss > 0"], "patience": 3}, 3),
        ({"stop": [f"{AUROC} > 0.51"], "lower_bound": True, "patience": 8}, 8),
    ],
)
@pytest.mark.slow
@pytest.mark.exhaustive
def test_limits_together(trainer, callback, options, stopped):
    made = trainer(callback(every_n_steps=1, **options), num_train_epochs=2)
    made.train()
    assert made.state.global_step == stopped


@pytest.mark.slow
@pytest.mark.exhaustive
def test_patience_counts_on_after_a_resume(trainer, callback):
    settings = {"save_strategy": "epoch", "num_train_epochs": 5}
    trainer(callback(stop="val/loss > 0", patience=3), **settings | {"num_train_epochs": 2}).train()
    made = trainer(callback(stop="val/loss > 0", patience=3), **settings)
    made.train(resume_from_checkpoint=True)
    assert made.state.global_step == 12
    assert [line.step for line in lines(made)] == [0, 4, 8, 12]
    ended = trainer(callback(stop="val/loss > 0", patience=3), **settings)
    ended.train(resume_from_checkpoint=True)
    assert ended.state.global_step <= 13  # the Trainer takes one step before it checks
    on = trainer(callback(stop="val/loss > 0", patience=4), **settings)
    on.train(resume_from_checkpoint=f"{made.args.output_dir}/checkpoint-12")
    assert on.state.global_step == 16


@pytest.mark.parametrize(
    ("options", "settings", "named"),
    [
        ({"stop": "mia/refrence_auroc > 0.7"}, {}, "did you mean 'mia/reference_auroc'"),
        ({}, {"metric_for_best_model": "eval_mia/refrence_auroc"}, "did you mean 'mia/reference_auroc'"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ({"stop": "extraction/exact_rate > 0"}, {}, "stop: nothing logs 'extraction/exact_rate'"),
                ({"reference": "adapter_off"}, {"model": "whole"}, "reference is adapter_off, but the model has no"),
            ]
        ),
    ],
)
def test_a_wrong_option_is_named_before_training(trainer, callback, options, settings, named):
    if "model" in settings:
        settings = {"model": load_base(TINY)}
    made = trainer(callback(**options), **settings)
    with pytest.raises(ConfigError, match=named) as found:
        made.train()
    assert "\n" not in str(found.value)
    assert made.state.global_step == 0


@pytest.mark.parametrize(
    "options",
    [{"patience": 0}, {"log": "some"}, {"stop_when": "both"}, {"every_n_steps": 0}, {"suite": "fast"}, {"stop": "x"}],
)
def test_a_wrong_option_is_named_at_once(options):
    with pytest.raises(ConfigError):
        MemorizationCallback(**options)


@pytest.mark.slow
def test_where_the_loss_is_not_finite_training_is_the_users(trainer, callback, lora, caplog):
    model = lora()
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = math.inf
    settings = {"metric_for_best_model": AUROC, "save_strategy": "epoch", "load_best_model_at_end": True}
    made = trainer(callback(), model=model, **settings)
    made.train()
    assert made.state.global_step == 4
    assert [one for one in caplog.messages if "so the pass cannot be measured" in one]
    assert not lines(made)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_one_callback_serves_two_trainers_and_a_second_train(trainer, callback, tmp_path):
    measured = callback()
    first = trainer(measured)
    first.train()
    second = trainer(measured, output_dir=str(tmp_path / "second"))
    assert second.evaluate()[f"eval_{AUROC}"] == 0.5
    second.train()
    assert [line.step for line in lines(first)] == [0, 4]
    assert [line.step for line in lines(second)] == [0, 4]
    grown = logged(first)[-1][1]
    first.train()  # continues with its current weights
    assert logged(first)[0][1] == grown
    assert [line.step for line in lines(first)] == [0, 4]
    kept = record.read(record_path(first).parent.with_name("memorization_1") / record.FILE)[0]
    assert [line.metrics[AUROC] for line in kept] == [0.5, grown]


@pytest.mark.slow
def test_trials_that_make_their_model_anew_start_at_one_half(trainer, callback):
    made = trainer(callback(), model_init=lambda: load_base(TINY).requires_grad_(True))
    for _ in range(2):
        made.train()
        assert logged(made)[0][1] == 0.5


@pytest.mark.slow
@pytest.mark.exhaustive
def test_tensorboard_gets_metrics_and_plots(trainer, callback, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    made = trainer(callback(), report_to=["tensorboard"])
    made.train()
    events = EventAccumulator(str(tmp_path / "board"))
    events.Reload()
    found = [(one.step, one.value) for one in events.Scalars(f"train/{AUROC}")]
    assert found == [(step, pytest.approx(value)) for step, value in logged(made)]
    assert {"mia/roc", "mia/scores"} <= set(events.Tags()["images"])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_log_main_or_all(trainer, callback):
    names = []
    for log in ("main", "all"):
        made = trainer(callback(log=log, stop="mia/zlib_auroc_low > 2"), max_steps=1)
        made.train()
        names.append({name for row in made.state.log_history for name in row if "/" in name})
    assert names[0] < names[1]
    assert "mia/zlib_auroc_low" in names[0]
    assert len(names[0]) < 40
