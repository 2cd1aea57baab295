"""The effect of each option of Lightning's Trainer on the metrics: they stay right, or one line rejects it or warns."""

import logging
import math
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.plugins import HalfPrecision

from lit_mem.adapters import FullFineTuning
from lit_mem.audit.measure import Result
from lit_mem.callbacks import (
    Baseline,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    Perplexity,
    PerplexityDropWarning,
    Stopwatch,
)
from lit_mem.cli.main import main
from lit_mem.errors import ConfigError
from lit_mem.generation.decoding import Sampling, decode
from lit_mem.lightning.auditing import latest_metrics
from lit_mem.scoring.reference_scores import Reference

QUICKSTART = str(Path(__file__).parents[2] / "tests" / "quickstart_plain.yaml")
BATCHES, BATCH_SIZE = 4, 4
TEXTS = {"train_size": BATCHES * BATCH_SIZE, "heldout_size": 12, "batch_size": BATCH_SIZE, "max_length": 24}

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
slow = pytest.mark.slow  # each is quick; all of them together are not


class Passes(Callback):
    """Records the metrics and the step of each validation after the check before training."""

    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            metrics = {k: v for k, v in latest_metrics(trainer).items() if k != "train/loss"}
            self.seen.append((trainer.global_step, metrics))

    @property
    def steps(self):
        return [step for step, _ in self.seen]

    def at(self, step):
        return {name: value for name, value in dict(self.seen)[step].items() if not name.startswith("time/")}


@pytest.fixture(scope="module")
def fit(module, data, trainer):
    """Runs a new fit: `fit(val_check_interval=2).passes.steps`; the model is built with the same random numbers."""
    shared = data(**TEXTS)

    class Fitted:
        def __init__(self, callbacks=(), texts=None, model=None, sgd=None, **options):
            torch.manual_seed(1)
            self.module = module(**(model or {}))
            if sgd is not None:
                self.module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=sgd)
            self.data = shared if texts is None else data(**(TEXTS | texts))
            self.passes = Passes()
            measures = [Perplexity(), MembershipInference(combined=False, plots=False), *callbacks, self.passes]
            self.trainer = trainer(measures, **options)
            self.trainer.fit(self.module, self.data)

    return Fitted


@pytest.fixture(scope="module")
def plain(fit, trained):
    """A run with default options, and its weights."""
    run = fit()
    assert run.passes.steps == [BATCHES, 2 * BATCHES]
    return run, trained(run.module)


def assert_same_weights(left, right):
    assert left.keys() == right.keys()
    assert left
    assert all(torch.equal(left[name], right[name]) for name in left)


def by_hand(run, test=False):
    """Held-out loss and the loss attack's AUROC, text by text and pair by pair."""
    model = run.module.language_model.eval()

    def losses(examples):
        found = []
        for e in examples:
            labels = e.input_ids.masked_fill(~e.scored, -100)[None]
            with torch.no_grad(), run.trainer.precision_plugin.forward_context():
                loss = model(input_ids=e.input_ids[None], labels=labels).loss
            found.append((float(loss), int(e.scored.sum())))
        return found

    heldout, members = losses(run.data.test if test else run.data.heldout), losses(run.data.members)
    pairs = [(m < h) + (m == h) / 2 for m, _ in members for h, _ in heldout]
    loss = sum(mean * n for mean, n in heldout) / sum(n for _, n in heldout)
    return {"val/loss": loss, "mia/loss_auroc": sum(pairs) / len(pairs)}


def test_a_plain_run_measures_what_is_counted_by_hand(plain):
    run, _ = plain
    measured = run.passes.at(2 * BATCHES)
    assert {name: measured[name] for name in by_hand(run)} == pytest.approx(by_hand(run), abs=1e-5)


# -- options that change neither training nor a metric -------------------------------------------------------

WHOLE = [BATCHES, 2 * BATCHES]
QUICK = 1
SAME = [  # the first runs in every test run
    (
        {
            "reload_dataloaders_every_n_epochs": 1,
            "use_distributed_sampler": False,
            "inference_mode": False,
            "enable_progress_bar": True,
            "profiler": "simple",
            "deterministic": True,
            "num_sanity_val_steps": 1,
            "logger": True,
            "log_every_n_steps": 3,
        },
        WHOLE,
    ),
    ({"val_check_interval": 2}, [2, 4, 6, 8]),
    ({"val_check_interval": 0.5}, [2, 4, 6, 8]),
    ({"val_check_interval": 3}, [3, 7]),
    ({"val_check_interval": 4, "check_val_every_n_epoch": None}, [4, 8]),
    ({"val_check_interval": 3, "check_val_every_n_epoch": None}, [3, 6]),
    ({"val_check_interval": "00:00:00:00"}, [1, 2, 3, 4, 5, 6, 7, 8]),
    ({"check_val_every_n_epoch": 2}, [8]),
    ({"num_sanity_val_steps": 0}, WHOLE),
    ({"num_sanity_val_steps": 1}, WHOLE),
    ({"max_epochs": -1, "max_steps": 8}, WHOLE),
    ({"max_time": "00:01:00:00"}, WHOLE),
    ({"min_epochs": 2}, WHOLE),
    ({"accumulate_grad_batches": 1}, WHOLE),
    ({"gradient_clip_val": 1e9}, WHOLE),
    ({"limit_train_batches": 1.0, "limit_val_batches": 1.0}, WHOLE),
    ({"reload_dataloaders_every_n_epochs": 1}, WHOLE),
    ({"use_distributed_sampler": False}, WHOLE),
    ({"detect_anomaly": True}, WHOLE),
    ({"deterministic": True}, WHOLE),
    ({"inference_mode": False}, WHOLE),
    ({"enable_progress_bar": True}, WHOLE),
    ({"enable_model_summary": True}, WHOLE),
    ({"logger": True}, WHOLE),
    ({"log_every_n_steps": 3, "logger": True}, WHOLE),
    ({"log_every_n_steps": 0, "logger": True}, WHOLE),
    ({"profiler": "simple"}, WHOLE),
    ({"strategy": "ddp"}, WHOLE),
]


def spelt(options):
    return "-".join(f"{name}={value}" for name, value in options.items())


@pytest.fixture
def afterwards():
    """Undo process-wide effects of options."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize(
    ("options", "steps"),
    [pytest.param(*case, id=spelt(case[0]), marks=[slow] * (i >= QUICK)) for i, case in enumerate(SAME)],
)
def test_training_and_metrics_are_those_of_a_plain_run(fit, plain, trained, afterwards, options, steps):
    expected, weights = plain
    run = fit(**options)
    assert run.passes.steps == steps
    assert_same_weights(trained(run.module), weights)
    for step in set(steps) & set(WHOLE):
        assert run.passes.at(step) == expected.passes.at(step)
    for _, metrics in run.passes.seen:
        assert metrics.keys() == expected.passes.seen[0][1].keys()


# -- options that change training: the same as in a loop written by hand -------------------------------------


RATE = 0.2


def hand_loop(module, data, accumulate=1, clip=None, by="norm"):
    """Two epochs over the same batches in the same order, in plain torch."""
    torch.manual_seed(1)
    model = module(dropout=0.0)
    model.configure_model()
    examples = data(**TEXTS, tokenizer="asset:tiny_llama")
    examples.setup("fit")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=RATE)  # AdamW would amplify a rounding error to a whole step
    steps = math.ceil(BATCHES / accumulate) * 2
    loader = examples.train_dataloader()
    done = 0
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for i, batch in enumerate(loader):
            optimizer.param_groups[0]["lr"] = RATE * (1 - done / steps)
            loss = model.language_model(
                input_ids=batch["input_ids"],
                attention_mask=(torch.arange(batch["input_ids"].shape[1]) < lengths(batch)[:, None]).long(),
                labels=batch["labels"],
            ).loss
            (loss / accumulate).backward()
            if (i + 1) % accumulate == 0 or i + 1 == BATCHES:
                if clip is not None and by == "norm":
                    torch.nn.utils.clip_grad_norm_(parameters, clip)
                elif clip is not None:
                    torch.nn.utils.clip_grad_value_(parameters, clip)
                optimizer.step()
                optimizer.zero_grad()
                done += 1
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def lengths(batch):
    """Lengths of the texts of a batch, including the appended end-of-text token."""
    return (batch["labels"] != -100).sum(dim=1) + 1


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        # The last batch of an epoch is smaller.
        ({"accumulate_grad_batches": 3, "gradient_clip_val": 0.05}, {"accumulate": 3, "clip": 0.05}),
        pytest.param({}, {}, marks=slow),
        pytest.param({"accumulate_grad_batches": 2}, {"accumulate": 2}, marks=slow),
        pytest.param({"gradient_clip_val": 0.05}, {"clip": 0.05}, marks=slow),
        pytest.param(
            {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}, {"clip": 1e-3, "by": "value"}, marks=slow
        ),
    ],
    ids=lambda value: spelt(value) or "plain",
)
def test_training_is_that_of_a_loop_by_hand(fit, module, data, trained, options, by_hand):
    run = fit(model={"dropout": 0.0}, sgd=RATE, **options)
    expected = hand_loop(module, data, **by_hand)
    found = trained(run.module)
    assert max(weight.abs().max() for name, weight in found.items() if "lora_B" in name) > 1e-4
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-7)


# -- options that change rounding ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:You passed .*16-mixed.* not supported on CPU")
@pytest.mark.parametrize(
    ("precision", "kind", "tolerance"),
    [
        pytest.param("bf16-true", "copy", 0.02, marks=slow),
        pytest.param("64-true", "adapter_off", 1e-5, marks=slow),
        pytest.param("bf16-true", "adapter_off", 0.02, marks=slow),
        pytest.param("64-true", "copy", 1e-5, marks=slow),
        pytest.param("bf16-mixed", "adapter_off", 0.02, marks=slow),
        pytest.param("bf16-mixed", "copy", 0.02, marks=slow),
        pytest.param("16-mixed", "adapter_off", 0.02, marks=slow),
    ],
)
def test_in_any_precision_metrics_are_those_counted_by_hand_in_it(fit, trained, precision, kind, tolerance):
    class Start(MembershipInference):
        def observe(self, scores, batch):
            super().observe(scores, batch)
            self.dtypes = {scores.logprob.dtype, scores.reference.dtype}

        def on_sanity_check_end(self, trainer, pl_module):
            self.start = dict(self.metrics)

    first = Start({"reference": MembershipInference().attacks["reference"]}, combined=False, plots=False)
    first.names = list  # the other one logs the same names and values
    run = fit([first], model={"reference": Reference(kind)}, precision=precision)
    measured = run.passes.at(2 * BATCHES)
    expected = by_hand(run)
    assert measured["val/loss"] == pytest.approx(expected["val/loss"], rel=tolerance)
    assert measured["mia/loss_auroc"] == pytest.approx(expected["mia/loss_auroc"], abs=5 * tolerance)
    # Both models are scored in the same precision, so an untrained adapter equals its base exactly.
    assert first.start["mia/reference_auroc"] == 0.5
    assert measured["mia/reference_auroc"] > 0.6
    assert first.dtypes == {torch.float32}
    weights = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert {p.dtype for p in trained(run.module).values()} == {weights}


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.7)])
def test_what_is_generated_is_not_rounded_to_the_precision_that_a_trainer_makes_the_default(base, sampling):
    prompts = [torch.tensor([1, 50, 90, 40]), torch.tensor([1, 60])]
    [*expected] = decode(base, prompts, [8, 8], None, sampling)
    with HalfPrecision("bf16-true").forward_context():
        assert torch.get_default_dtype() == torch.bfloat16
        [*found] = decode(base, prompts, [8, 8], None, sampling)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.ids.tolist() == theirs.ids.tolist()
        assert mine.logprob.dtype == torch.float32
        assert torch.equal(mine.logprob, theirs.logprob)


@slow
def test_16_mixed_is_bf16_mixed_on_a_cpu(fit, trained):
    half = fit(precision="bf16-mixed", max_epochs=1)
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU"):
        run = fit(precision="16-mixed", max_epochs=1)
    assert_same_weights(trained(run.module), trained(half.module))
    assert run.passes.at(BATCHES) == half.passes.at(BATCHES)


@slow
def test_a_reference_of_its_own_follows_the_tuned_model_into_its_precision(fit):
    start = Baseline()
    fit([start], model={"adapter": FullFineTuning(), "lr": 1e-3}, precision="bf16-true", max_epochs=1)
    assert start.metrics["mia/reference_auroc"] == 0.5


# -- options that use less data ------------------------------------------------------------------------------


def warned(caplog):
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    # Long texts and few steps, after which the loss has not changed.
    expected = ("are neither trained on nor measured", "hardly learned", "never fell below its value before training")
    return [line for line in lines if not any(part in line for part in expected)]


class Ids(Perplexity):
    """Records which texts were scored last."""

    def names(self):
        return []

    def begin(self, subject):
        super().begin(subject)
        self.seen = set()

    def observe(self, scores, batch):
        super().observe(scores, batch)
        self.seen |= set(scores.example_id.tolist())

    def compute(self, run):
        return Result()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "batches"), [(2, 2), *(pytest.param(*case, marks=slow) for case in ((1, 1), (0.5, 2), (0.99, 3)))]
)
def test_a_limited_validation_says_that_it_is_one_of_the_longest_texts(fit, caplog, limit, batches):
    ids = Ids()
    run = fit([ids], texts={"scoring_tokens": 72}, limit_val_batches=limit, max_epochs=1)
    groups = [loader.sampler.groups for loader in run.data.val_dataloader()]
    assert min(map(len, groups)) > batches
    lines = [line for line in warned(caplog) if "limit_val_batches" in line]
    assert len(lines) == 1  # the check before training and later validations do not repeat it
    kept = [sum(map(len, g[: limit if isinstance(limit, int) else int(len(g) * limit)])) for g in groups]
    n, m = len(run.data.heldout), len(run.data.members)
    assert f"limit_val_batches is {limit}" in lines[0]
    counts = f"{kept[0]} of {n} held-out texts and {kept[1]} of {m} members"
    assert f"only the longest texts are scored, {counts}" in lines[0]
    assert "data.heldout_size and data.members_size" in lines[0]
    assert len(ids.seen) == sum(kept)
    shortest = min(len(e.input_ids) for e in [*run.data.heldout, *run.data.members] if e.example_id in ids.seen)
    left_out = [len(e.input_ids) for e in [*run.data.heldout, *run.data.members] if e.example_id not in ids.seen]
    assert left_out
    assert shortest >= min(left_out)


@slow
@pytest.mark.parametrize("limit", [1.0, 99])
def test_a_limit_that_leaves_nothing_out_says_nothing(fit, caplog, limit):
    fit(limit_val_batches=limit, limit_train_batches=limit, max_epochs=1)
    assert not warned(caplog)


@pytest.mark.slow
def test_no_validation_measures_nothing_and_says_so(fit, plain, trained, caplog):
    run = fit([MemorizationEarlyStopping(["mia/loss_auroc > 0"])], limit_val_batches=0)
    assert run.passes.steps == []
    [line] = warned(caplog)
    assert "limit_val_batches is 0: nothing is measured, no threshold can stop the run" in line
    assert_same_weights(trained(run.module), plain[1])


def test_a_limited_test_says_so(fit, plain, trainer, caplog):
    run, _ = plain
    ids = Ids()
    trainer([ids], limit_test_batches=1).test(run.module, run.data, verbose=False)
    [line] = warned(caplog)
    assert "limit_test_batches is 1: only the longest texts are scored" in line
    assert "test texts" in line
    assert 0 < len(ids.seen) < len(run.data.test) + len(run.data.members)


@slow
@pytest.mark.parametrize(("limit", "n"), [(0.5, 2), pytest.param(2, 2, marks=slow), pytest.param(1, 1, marks=slow)])
def test_limited_training_says_that_all_texts_count_as_members(fit, caplog, limit, n):
    run = fit(limit_train_batches=limit, max_epochs=3)
    [line] = [line for line in warned(caplog) if "limit_train" in line]
    assert f"limit_train_batches is {limit}: an epoch trains on {n} of {BATCHES} batches" in line
    assert f"all {TEXTS['train_size']} texts count as members" in line
    assert "data.train_size" in line
    assert run.passes.steps == [n, 2 * n, 3 * n]
    assert by_hand(run)["val/loss"] == pytest.approx(run.passes.at(3 * n)["val/loss"], abs=1e-5)


@slow
def test_without_training_there_is_the_start_alone(fit, trained):
    start = Baseline()
    run = fit([start], limit_train_batches=0)
    assert run.passes.steps == []
    assert start.metrics["mia/reference_auroc"] == 0.5
    assert not any(p.any() for name, p in trained(run.module).items() if "lora_B" in name)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, *(pytest.param(n, marks=slow) for n in (0, 2, -1))])
def test_a_start_is_measured_on_all_texts_or_not_at_all(fit, caplog, steps):
    caplog.set_level(logging.INFO, "lit_mem")
    start, moved = Baseline(), Movers()
    texts = {"heldout_size": 12, "scoring_tokens": 48}
    run = fit([start, moved], texts=texts, num_sanity_val_steps=steps, max_epochs=1)
    whole = sum(map(len, (loader.sampler.groups for loader in run.data.val_dataloader())))
    assert whole > 4
    assert bool(start.metrics) == (steps == -1)
    said = [line for line in warned(caplog) if line.startswith("No metrics before training")]
    line = (
        f"No metrics before training: only {2 * steps} of {whole} validation batches were run; set "
        "trainer.num_sanity_val_steps to -1 to log them."
    )
    assert said == ([] if steps in (0, -1) else [line])
    # Messages about the sets refer to the whole ones.
    assert [r.getMessage() for r in caplog.records if r.getMessage().startswith("TPR at FPR 0.01")] == [
        "TPR at FPR 0.01 needs at least 100 non-members, there are 12: not logged."
    ]
    assert ("memorization/largest_move" in run.passes.at(BATCHES)) == (steps == -1)


@pytest.mark.parametrize("amount", [2, pytest.param(0.5, marks=slow)])
def test_overfitting_a_few_batches_is_rejected(fit, amount):
    with pytest.raises(ConfigError, match=rf"trainer.overfit_batches is {amount}, .*data.train_size"):
        fit(overfit_batches=amount)


@slow
def test_what_overfit_batches_is_for_is_a_smaller_training_set(fit):
    run = fit(texts={"train_size": BATCH_SIZE, "members_size": BATCH_SIZE}, max_epochs=8)
    assert len(run.data.members) == len(run.data.train) == BATCH_SIZE
    start, end = run.passes.at(1), run.passes.at(8)
    assert end["memorization/perplexity_members"] < start["memorization/perplexity_members"]
    assert by_hand(run)["mia/loss_auroc"] == pytest.approx(end["mia/loss_auroc"])


@slow
@pytest.mark.parametrize("n", [2, True])
def test_a_dry_run_keeps_nothing_and_says_what_it_measured(fit, tmp_path, caplog, n):
    keep, start = MemorizationCheckpoint(dirpath=str(tmp_path)), Baseline()
    run = fit([keep, start], texts={"scoring_tokens": 48}, fast_dev_run=n, logger=True)
    assert run.passes.steps == [int(n)]
    assert not list(tmp_path.iterdir())
    assert not start.metrics
    assert [line for line in warned(caplog) if f"trainer.fast_dev_run is {int(n)}: only the longest texts" in line]


# -- options that end a run ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("max_steps", [6, pytest.param(1, marks=slow), pytest.param(3, marks=slow)])
def test_a_run_that_max_steps_ends_amid_an_epoch_ends_with_a_validation(fit, plain, tmp_path, max_steps, caplog):
    keep = MemorizationCheckpoint(dirpath=str(tmp_path))
    run = fit([keep], max_steps=max_steps, max_epochs=-1)
    assert run.passes.steps[-1] == max_steps
    assert run.passes.steps == sorted({*range(BATCHES, max_steps + 1, BATCHES), max_steps})
    assert by_hand(run)["val/loss"] == pytest.approx(run.passes.at(max_steps)["val/loss"], abs=1e-5)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == max_steps
    named = dict(run.module.named_parameters())
    assert all(torch.equal(weight, named[name]) for name, weight in saved["state_dict"].items())
    assert not warned(caplog)


@slow
def test_a_run_that_max_time_ends_ends_with_a_validation(fit, tmp_path):
    class Slow(Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 1:
                timer = next(c for c in trainer.callbacks if type(c).__name__ == "Timer")
                timer._duration = 0.0  # time runs out in this step

    run = fit([Slow()], max_time="00:00:10:00")
    assert run.passes.steps == [2]
    assert by_hand(run)["val/loss"] == pytest.approx(run.passes.at(2)["val/loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{"lr_schedule": "linear"}, {"lr_schedule": "constant", "warmup_fraction": 0.1}])
def test_a_schedule_over_an_unknown_number_of_steps_is_rejected(fit, schedule):
    with pytest.raises(ConfigError, match=r"model\.lr_schedule is .*; set trainer.max_epochs or trainer.max_steps"):
        fit(model=schedule, max_time="00:00:10:00", max_epochs=-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "seen", "left"),
    [
        ({"check_val_every_n_epoch": 2, "max_epochs": 3}, [8], 4),
        pytest.param({"check_val_every_n_epoch": None, "val_check_interval": 3}, [3, 6], 2, marks=slow),
        pytest.param({"check_val_every_n_epoch": 5}, [], 8, marks=slow),
    ],
)
def test_steps_after_the_last_validation_are_logged(fit, caplog, options, seen, left):
    run = fit(**options)
    assert run.passes.steps == seen
    [line] = warned(caplog)
    done = (seen or [0])[-1] + left
    assert line.startswith(f"The last {left} of {done} training steps came after the last validation")
    assert "trainer.val_check_interval" in line


@slow
def test_early_stopping_reacts_amid_an_epoch(fit):
    stop = MemorizationEarlyStopping(["val/loss > 0"], patience=3)
    run = fit([stop], val_check_interval=1, max_epochs=5)
    assert run.passes.steps == [1, 2, 3]
    assert run.trainer.global_step == 3


@slow
def test_a_stop_of_another_run_stops_nothing(fit, capsys):
    stop = MemorizationEarlyStopping(["val/loss > 0"])
    fit([stop], max_epochs=3)
    assert stop.reason is not None
    capsys.readouterr()
    run = fit([stop], max_epochs=2, limit_val_batches=0)
    assert run.trainer.global_step == 2 * BATCHES
    assert "stopped" not in capsys.readouterr().out


@slow
def test_min_epochs_holds_a_stop_back(fit):
    stop = MemorizationEarlyStopping(["val/loss > 0"])
    run = fit([stop], min_epochs=2, max_epochs=5)
    assert run.trainer.global_step == 2 * BATCHES


# -- what a run logs -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"check_val_every_n_epoch": 2},
        pytest.param({}, marks=slow),
        pytest.param({"val_check_interval": 2}, marks=slow),
        pytest.param({"max_steps": 7, "max_epochs": -1}, marks=slow),
    ],
)
def test_the_time_of_training_is_that_since_the_last_validation(fit, options, monkeypatch):
    """On a clock that advances 1 s per training step, 10 s per scored batch, and not otherwise."""
    now = [0.0]
    monkeypatch.setattr("lit_mem.lightning.stopwatch.time.perf_counter", lambda: now[0])

    class Steps(Callback):
        def on_train_batch_end(self, *args):
            now[0] += 1

        def on_validation_batch_start(self, *args):
            now[0] += 10

        def on_validation_end(self, *args):
            now[0] += 100  # a checkpoint

        def on_train_epoch_end(self, *args):
            now[0] += 1000

    run = fit([Steps(), Stopwatch()], **options)
    last = 0
    for step, metrics in run.passes.seen:
        assert metrics["time/train"] == step - last
        assert metrics["time/scoring"] == 10 * sum(run.trainer.num_val_batches)
        last = step
    assert last in (7, 8)


@slow
def test_pictures_stand_at_the_step_of_their_numbers(fit, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drawn = MembershipInference({"zlib": MembershipInference().attacks["zlib"]})
    drawn.names = list
    for name, options in {
        "plain": {},
        "amid": {"val_check_interval": 1},
        "gathered": {"val_check_interval": 1, "accumulate_grad_batches": 3},
        "few": {"num_sanity_val_steps": 1},
    }.items():
        logger = TensorBoardLogger(str(tmp_path), name="", version=name)
        texts = {"scoring_tokens": 48}
        fit([drawn], texts=texts, logger=logger, max_epochs=1, **({"num_sanity_val_steps": 0} | options))
        board = EventAccumulator(logger.log_dir)
        board.Reload()
        steps = [event.step for event in board.Scalars("val/loss")]
        assert sorted({event.step for event in board.Images("mia/roc")}) == sorted(set(steps)), name


@slow
@pytest.mark.parametrize(("sanity", "times"), [(-1, 1), (0, 0)])
def test_the_start_is_logged_once_however_often_is_fitted(fit, tmp_path, sanity, times):
    from lightning.pytorch.loggers import CSVLogger

    start = Baseline()
    run = fit([start], max_epochs=1)
    measured = start.metrics["val/loss"]
    logger = CSVLogger(str(tmp_path))
    again = fit([start], logger=logger, num_sanity_val_steps=sanity, max_epochs=1)
    again.trainer.fit_loop.max_epochs = 2
    again.trainer.fit(again.module, again.data)
    import csv

    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    starts = [float(row["val/loss"]) for row in rows if row["epoch"] == ""]
    assert starts == [pytest.approx(measured, abs=1e-6)] * times
    assert run.passes.steps == [BATCHES]


# -- repeated use --------------------------------------------------------------------------------------------


@slow
def test_validating_and_testing_without_training_measure_what_is_counted_by_hand(module, data, trainer):
    model, texts = module(), data(**TEXTS)
    for run, stage in (("validate", "val"), ("test", "test")):
        t = trainer([Perplexity(), MembershipInference(plots=False)])
        getattr(t, run)(model, texts, verbose=False)
        expected = by_hand(SimpleNamespace(module=model, data=texts, trainer=t), test=stage == "test")
        assert float(t.callback_metrics[f"{stage}/loss"]) == pytest.approx(expected["val/loss"], abs=1e-5)
        assert float(t.callback_metrics["mia/loss_auroc"]) == pytest.approx(expected["mia/loss_auroc"])
        assert float(t.callback_metrics["mia/reference_auroc"]) == 0.5


@slow
def test_fit_validate_fit_measures_each_time_what_is_there(fit):
    run = fit([Stopwatch(), Movers(), PerplexityDropWarning()], max_epochs=1)
    t = run.trainer
    again, *_ = t.validate(run.module, run.data, verbose=False)
    first = run.passes.at(BATCHES)
    assert {k: v for k, v in again.items() if k in first and not k.startswith("time/")} == pytest.approx(
        {k: v for k, v in first.items() if k in again}, abs=1e-6
    )
    assert "time/train" not in again
    t.fit_loop.max_epochs = 3
    t.fit(run.module, run.data)
    # The second fit continues from the first: three epochs in all, each with its own order of texts.
    assert run.passes.steps == [BATCHES, BATCHES, 2 * BATCHES, 3 * BATCHES]
    last = run.passes.at(3 * BATCHES)
    assert {name: last[name] for name in by_hand(run)} == pytest.approx(by_hand(run), abs=1e-5)


@slow
def test_a_second_fit_goes_on_in_the_order_of_one_long_fit(module, data, trainer, trained):
    class Order(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append(batch["example_id"].tolist())

    def make():
        torch.manual_seed(1)
        model = module(dropout=0.0, lr_schedule="constant")
        model.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # has no state
        return model, data(**TEXTS), Order()

    model, texts, whole = make()
    trainer([whole], max_epochs=3).fit(model, texts)
    expected = trained(model)
    model, texts, parts = make()
    t = trainer([parts], max_epochs=1)
    t.fit(model, texts)
    t.fit_loop.max_epochs = 3
    t.fit(model, texts)
    assert parts.seen == whole.seen
    assert_same_weights(trained(model), expected)


@slow
def test_a_module_and_its_callbacks_serve_two_trainers_one_after_the_other(module, data, trainer, trained):
    """No state of the first run, in another precision, affects the second."""

    def callbacks():
        return [
            Baseline(),
            Perplexity(),
            MembershipInference(plots=False),
            Extraction(n_members=4, n_heldout=4, prefix=4, every_n_validations=2),
            Movers(),
        ]

    def second(model, used):
        passes = Passes()
        t = trainer([*used, passes], max_epochs=2, num_sanity_val_steps=-1)
        torch.manual_seed(2)
        t.fit(model, data(**TEXTS))
        return used[0].metrics, passes

    torch.manual_seed(1)
    model, used = module(), callbacks()
    trainer(used, precision="bf16-mixed", max_epochs=1).fit(model, data(**TEXTS))
    weights = trained(model)
    start, passes = second(model, used)

    torch.manual_seed(1)
    fresh = module()
    fresh.configure_model()
    fresh.load_state_dict(weights, strict=False)
    expected_start, expected = second(fresh, callbacks())
    left, right = ({k: v for k, v in d.items() if not k.startswith("time/")} for d in (start, expected_start))
    assert left == right
    for step in WHOLE:
        assert passes.at(step) == expected.at(step)
    assert "extraction/exact_rate" in passes.at(2 * BATCHES)


@slow
def test_callbacks_that_measured_another_model_measure_this_one(module, data, trainer):
    """The base's continuations are cached within a run; another model has another base."""

    def measured(model, extraction):
        t = trainer([extraction])
        t.validate(model, data(**TEXTS), verbose=False)
        return {k: float(v) for k, v in t.callback_metrics.items() if k.startswith("extraction/")}

    def make(scale):
        model = module()
        model.configure_model()
        with torch.no_grad():
            for p in model.language_model.get_base_model().model.layers[0].parameters():
                p.mul_(scale)
        return model

    used = Extraction(n_members=4, n_heldout=4, prefix=4)
    measured(make(1.0), used)
    assert measured(make(-3.0), used) == measured(make(-3.0), Extraction(n_members=4, n_heldout=4, prefix=4))


@pytest.mark.slow
def test_a_validation_that_was_broken_off_leaves_nothing_behind(module, data, trainer):
    class Stop(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            raise RuntimeError("stopped")

    model, texts = module(), data(**TEXTS)
    with pytest.raises(RuntimeError, match="stopped"):
        trainer([Stop()]).validate(model, texts, verbose=False)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).normal_(std=0.5)
    t = trainer([])
    found, *_ = t.validate(model, texts, verbose=False)
    expected = by_hand(SimpleNamespace(module=model, data=texts, trainer=t))
    assert found["val/loss"] == pytest.approx(expected["val/loss"], abs=1e-5)


# -- rejections ----------------------------------------------------------------------------------------------


def test_a_trainer_that_logs_nothing_is_rejected(module, data):
    import lightning.pytorch as pl

    with pytest.raises(ConfigError, match=r"trainer\.barebones is true: nothing is logged"):
        pl.Trainer(barebones=True, accelerator="cpu", max_epochs=1, callbacks=[Perplexity()]).fit(module(), data())


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The command line in this process: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    small = "--data.train_size 8 --data.heldout_size 8 --data.max_length 24 --data.batch_size 4 --data.check false"

    def run(subcommand, *options):
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's own, which the console shows
            try:
                main([subcommand, "--config", QUICKSTART, *small.split(), *options])
            except SystemExit as stop:
                code = stop.code
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


REFUSED = [
    ("--trainer.overfit_batches 2", ["trainer.overfit_batches is 2", "data.train_size"]),
    ("--trainer.accumulate_grad_batches 0", ["trainer.accumulate_grad_batches is 0; expected at least 1"]),
    ("--trainer.barebones true", ["trainer: ", "barebones=True"]),
    (
        "--trainer.enable_checkpointing false --trainer.callbacks+=lit_mem.callbacks.MemorizationCheckpoint",
        ["trainer: ", "enable_checkpointing=False", "ModelCheckpoint"],
    ),
    ("--trainer.limit_val_batches 1.5", ["trainer: ", "1.5", "limit_val_batches", "[0.0, 1.0] or an int"]),
    ("--trainer.limit_val_batches -1", ["trainer: ", "-1", "limit_val_batches"]),
    ("--trainer.limit_val_batches 0.001", ["0.001", "limit_val_batches", "Try at least"]),
    ("--trainer.val_check_interval 0.5 --trainer.check_val_every_n_epoch null", ["val_check_interval", "integer"]),
    ("--trainer.val_check_interval soon", ["val_check_interval", "soon", "DD:HH:MM:SS"]),
    ("--trainer.max_epochs -2", ["trainer: ", "max_epochs", "-2"]),
    ("--trainer.fast_dev_run -1", ["trainer: ", "fast_dev_run", "-1"]),
    ("--trainer.gradient_clip_algorithm mean", ["gradient_clip_algorithm", "mean"]),
    ("--trainer.profiler quick", ["trainer: ", "profiler", "simple"]),
    ("--trainer.max_time soon", ["trainer: ", "soon", "DD:HH:MM:SS"]),
    (
        "--trainer.max_time 00:01:00:00 --trainer.max_epochs -1 --model.lr_schedule cosine",
        ["model.lr_schedule is cosine", "trainer.max_steps"],
    ),
]


@pytest.mark.parametrize(
    ("options", "says"),
    [pytest.param(*case, id=case[0][10:], marks=[slow] * (i >= QUICK)) for i, case in enumerate(REFUSED)],
)
def test_unsupported_options_are_rejected_in_one_line(command, options, says):
    code, _, err = command("fit", "--trainer.logger", "false", *options.split())
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    for piece in says:
        assert piece in lines[0]
    assert "Traceback" not in err


@slow
def test_a_progress_bar_without_a_terminal_leaves_the_table_whole(command):
    code, out, _ = command(
        "fit", "--trainer.logger", "false", "--trainer.enable_progress_bar", "true", "--trainer.max_epochs", "1"
    )
    assert code == 0
    head = next(line for line in out.splitlines() if line.startswith("epoch  val/loss"))
    rows = [line for line in out.splitlines() if len(line) == len(head)]
    assert [row.split()[0] for row in rows] == ["epoch", "start", "1"]


@slow
def test_a_checkpoint_is_measured_again_as_in_the_run(command):
    """Also within an epoch, and under options that change how the validation runs but not its result."""
    code, out, err = command("fit", "--trainer.max_epochs", "1", "--trainer.val_check_interval", "1")
    assert code == 0, err
    rows = [row.split() for row in out.splitlines() if row.lstrip().startswith("1 ")]
    assert len(rows) == 2
    last = "logs/quickstart/version_0/checkpoints/last.ckpt"
    for options in ("", "--trainer.inference_mode false", "--trainer.profiler simple", "--trainer.strategy ddp"):
        code, out, err = command("validate", "--ckpt_path", last, "--trainer.logger", "false", *options.split())
        assert code == 0, err
        metrics = dict(line.split() for line in out.splitlines() if "/" in line and len(line.split()) == 2)
        assert f"{float(metrics['val/loss']):.3f}" == rows[-1][1]
        assert f"{float(metrics['mia/reference_auroc']):.3f}" == rows[-1][5]


@slow
def test_the_learning_rate_monitor_and_other_callbacks_of_lightning_stand_beside(fit, plain, trained):
    run = fit([LearningRateMonitor()], logger=True)
    assert_same_weights(trained(run.module), plain[1])
