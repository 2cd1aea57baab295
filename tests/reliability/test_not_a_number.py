"""A non-finite loss: the run stops and reports where, nothing is measured, and no checkpoint is lost."""

import csv
import logging
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader

from lit_mem.audit.measures import perplexity
from lit_mem.callbacks import (
    Baseline,
    Correlation,
    EpochTable,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Movers,
    PerExampleTable,
    Perplexity,
    PerplexityDropWarning,
    Slices,
    SpanExtraction,
    Stopwatch,
)
from lit_mem.cli.main import main
from lit_mem.errors import MetricError, TrainingError
from lit_mem.generation.decoding import Sampling, decode
from lit_mem.lightning.loss_watch import LossWatch
from lit_mem.scoring.reference_scores import Reference
from lit_mem.types import TokenScores

QUICKSTART = str(Path(__file__).parents[2] / "tests" / "quickstart_plain.yaml")
TEXTS = {"train_size": 12, "heldout_size": 8, "batch_size": 4, "max_length": 24}  # three steps per epoch
LR = "model.optimizer.init_args.lr"

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
slow = pytest.mark.slow  # each is quick; all of them together are not


class Spoil(Callback):
    """Writes a value into a trained weight after a number of steps."""

    def __init__(self, value, after):
        self.value, self.after = value, after

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.after:
            with torch.no_grad():
                next(p for name, p in pl_module.named_parameters() if "lora_B" in name)[0, 0] = self.value


class Ended(Callback):
    """Records the last step and weights of training."""

    def on_exception(self, trainer, pl_module, exception):
        self.steps, self.weights = trainer.global_step, [p.detach().clone() for p in pl_module.parameters()]


def warned(caplog):
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    # Long texts and few steps, after which the loss has not changed.
    expected = ("are neither trained on nor measured", "hardly learned", "never fell below its value before training")
    return [line for line in lines if not any(part in line for part in expected)]


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# -- training ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "after", "epoch"),
    [
        (math.nan, 1, 1),
        (math.inf, 4, 2),
        *(
            pytest.param(value, after, epoch, marks=slow)
            for value in (math.nan, math.inf, -math.inf)
            for after, epoch in ((1, 1), (4, 2), (5, 2))
        ),
    ],
)
def test_training_stops_at_the_step_whose_loss_is_no_number(module, data, trainer, tmp_path, value, after, epoch):
    ended, keep = Ended(), MemorizationCheckpoint(dirpath=str(tmp_path))
    t = trainer([keep, Spoil(value, after), ended], num_sanity_val_steps=0)
    saved = f"the last checkpoint is {tmp_path}/last.ckpt" if epoch == 2 else "no checkpoint was saved"
    with pytest.raises(TrainingError) as stop:
        t.fit(module(), data(**TEXTS))
    assert str(stop.value) == (
        f"the training loss is nan at step {after + 1} (epoch {epoch}); lower {LR} or set trainer.gradient_clip_val; "
        f"{saved}"
    )
    assert ended.steps == after  # the step was not taken
    assert keep.epochs == ({} if epoch == 1 else dict.fromkeys(("last", "safe", "best"), 1))


@slow
def test_without_anything_wrong_nothing_is_changed_or_said(module, data, trainer, trained, caplog, monkeypatch):
    def fit():
        torch.manual_seed(1)
        model = module()
        trainer([]).fit(model, data(**TEXTS))
        return trained(model)

    watched = fit()
    assert not warned(caplog)
    for name in ("begin_step", "add", "look"):
        monkeypatch.setattr(LossWatch, name, lambda self, *args: None)
    unwatched = fit()
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)


def watched(world_size=1, every=3, agree=None, scaler=None):
    """The parts of a trainer that `LossWatch` needs; `agree` is another process's decision."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda mine, all: mine or bool(agree))
    plugin = SimpleNamespace(scaler=scaler)
    return SimpleNamespace(
        world_size=world_size, log_every_n_steps=every, strategy=strategy, precision_plugin=plugin,
        global_step=0, current_epoch=0, checkpoint_callbacks=[],
    )  # fmt: skip


class Elsewhere:
    """A loss on an asynchronous device, which records when the host reads it."""

    def __init__(self, value, read):
        self.value, self.read, self.device = value, read, SimpleNamespace(type="cuda")

    def detach(self):
        return self


def test_on_an_asynchronous_device_a_loss_is_read_a_step_later(monkeypatch):
    stack = torch.stack

    def noting(losses):
        return stack([torch.tensor(loss.read.append(loss.value) or loss.value) for loss in losses])

    monkeypatch.setattr("lit_mem.lightning.loss_watch.torch.stack", noting)
    watch, t, read = LossWatch(), watched(), []
    for step in range(3):
        watch.begin_step(t)
        assert read == [float(i) for i in range(step)]
        watch.add(Elsewhere(float(step), read), t)
        t.global_step += 1
    watch.look(t)
    assert read == [0.0, 1.0, 2.0]


def run_steps(watch, trainer, losses):
    for loss in losses:
        watch.begin_step(trainer)
        watch.add(torch.tensor(loss), trainer)
        trainer.global_step += 1


def test_several_processes_look_together_every_few_steps():
    watch = LossWatch()
    with pytest.raises(TrainingError, match=r"the training loss is nan at step 2 \(epoch 1\)"):
        run_steps(watch, watched(2), [1.0, math.nan, 1.0, 1.0])
    t = watched(2)
    run_steps(LossWatch(), t, [1.0, math.nan, 1.0])  # not before all processes check
    assert t.global_step == 3
    with pytest.raises(TrainingError, match="of another process is not finite, at step 3 or shortly before"):
        run_steps(LossWatch(), watched(2, agree=True), [1.0, 1.0, 1.0, 1.0])


def test_a_step_that_a_gradient_scaler_skips_is_logged_once_and_stops_nothing(caplog):
    watch, t = LossWatch(), watched(scaler=object())
    run_steps(watch, t, [1.0, math.nan, math.inf, 1.0])
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == 1
    assert "the training loss is nan at step 2 (epoch 1). The gradient scaler skips such a step" in lines[0]


class OverflowingLoss(Callback):
    """A loss, or only its gradient, that overflows float16 in one step."""

    def __init__(self, step, loss):
        self.step, self.loss = step, loss

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == self.step and not self.loss:
            pl_module.spoilt = next(p for n, p in pl_module.named_parameters() if "lora_B" in n).register_hook(
                lambda gradient: gradient * math.inf
            )
        elif hasattr(pl_module, "spoilt"):
            pl_module.spoilt.remove()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_a_gradient_that_overflows_under_a_scaler_skips_a_step_and_no_more(module, data, trainer, trained, caplog):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    model = module()
    t = trainer([Perplexity(), OverflowingLoss(1, loss=False)], plugins=[plugin], accelerator="cpu")
    t.fit(model, data(**TEXTS))
    assert scaler.get_scale() == 2.0**9  # the scale was halved once
    assert all(p.isfinite().all() for p in trained(model).values())
    assert math.isfinite(float(t.callback_metrics["val/loss"]))
    assert not warned(caplog)


# -- checkpoints ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(module, data, trainer, tmp_path):
    """By Lightning's own callback, which needs no validation."""
    spoil = Spoil(math.nan, after=2)
    keep = ModelCheckpoint(str(tmp_path), every_n_train_steps=1, save_top_k=-1, filename="{step}")
    t = trainer([spoil, keep], limit_val_batches=0, num_sanity_val_steps=0)
    with pytest.raises(TrainingError, match=r"no longer finite at step 2 .*lora_B.*so no checkpoint"):
        t.fit(module(), data(**TEXTS))
    assert [path.name for path in tmp_path.iterdir()] == ["step=1.ckpt"]


def test_checkpoints_of_before_are_kept_to_the_last_byte(module, data, trainer, tmp_path):
    """A weight corrupted after the last step of an epoch is found by the validation there."""
    keep = MemorizationCheckpoint(dirpath=str(tmp_path))
    model = module()
    trainer([keep, Perplexity()], max_epochs=1, num_sanity_val_steps=0).fit(model, data(**TEXTS))
    before = content(tmp_path)
    assert {"last.ckpt", "safe.ckpt", "best.ckpt", "adapter_model.safetensors"} <= before.keys()
    again = MemorizationCheckpoint(dirpath=str(tmp_path))
    t = trainer([again, Spoil(math.nan, after=3)], num_sanity_val_steps=0)
    with pytest.raises(MetricError, match="is nan after step 3"), pytest.warns(UserWarning, match="not empty"):
        t.fit(model, data(**TEXTS))
    assert content(tmp_path) == before


# -- validation ----------------------------------------------------------------------------------------------


def rare_token(texts):
    """(id of a token that only one held-out text has, that text's origin); not of the first text."""
    heldout = {e.record.origin: set(e.input_ids.tolist()) for e in texts.heldout}
    others = [set(e.input_ids.tolist()) for e in texts.train]
    for origin, ids in reversed(heldout.items()):
        seen = set().union(*others, *(other for name, other in heldout.items() if name != origin))
        if ids - seen:
            return min(ids - seen), origin
    raise AssertionError("no such token")


@pytest.fixture
def one_text_overflows(module, data):
    """A model for which only one held-out text has a non-finite loss: (model, data, the text's origin)."""
    texts = data(**TEXTS, tokenizer="asset:tiny_llama")
    texts.setup("fit")
    token, origin = rare_token(texts)
    model = module()
    model.configure_model()

    def overflow(embedding, args, output):
        return output.masked_fill((args[0] == token)[..., None], math.inf)

    model.language_model.get_input_embeddings().register_forward_hook(overflow)
    return model, texts, origin


MEASURES = {
    "none": [],
    "membership": [MembershipInference],
    "extraction": [Extraction],
    "perplexity": [Perplexity],
    "extractability": [Extractability],
    "spans": [SpanExtraction],
    "relations": [Perplexity, MembershipInference, Correlation, Movers, Slices],
}


@pytest.mark.parametrize(
    "measures",
    [pytest.param(m, id=name, marks=[slow] * (i >= 3)) for i, (name, m) in enumerate(MEASURES.items())],
)
def test_a_validation_names_the_text_that_has_no_loss_by_file_and_row(one_text_overflows, trainer, tmp_path, measures):
    model, texts, origin = one_text_overflows
    logger = CSVLogger(str(tmp_path))
    t = trainer([each() for each in measures], logger=logger)
    with pytest.raises(MetricError) as stop:
        t.validate(model, texts, verbose=False)
    assert origin
    assert str(stop.value).startswith(f"the model's loss on {origin} is nan, so the pass cannot be measured; ")
    assert "its weights are finite" in str(stop.value)
    assert not [name for name in t.callback_metrics if not name.startswith("time/")]
    assert "metrics.csv" not in content(tmp_path)


def test_the_check_before_training_and_later_validations_say_where_they_stood(one_text_overflows, trainer):
    model, texts, origin = one_text_overflows
    with pytest.raises(MetricError, match=rf"loss on {origin} is nan before training, so the pass cannot be measured"):
        trainer([Perplexity()]).fit(model, texts)
    model.train()  # undo the eval mode of the aborted validation
    with pytest.raises(MetricError, match=rf"loss on {origin} is nan after step 3 \(epoch 1\), so the pass"):
        trainer([Perplexity()], num_sanity_val_steps=0).fit(model, texts)


@pytest.mark.parametrize("value", [math.nan, pytest.param(math.inf, marks=slow)])
def test_a_weight_that_is_no_number_is_named_with_what_to_do(module, data, trainer, value):
    t = trainer([Perplexity(), Spoil(value, after=3)], num_sanity_val_steps=0)
    with pytest.raises(MetricError) as stop:
        t.fit(module(), data(**TEXTS))
    assert "is nan after step 3 (epoch 1), so the pass cannot be measured; the weights are no longer" in str(stop.value)
    assert f"lora_B.default.weight): lower {LR} or set trainer.gradient_clip_val; no checkpoint" in str(stop.value)


def test_an_adapter_saved_with_nan_is_distinguished_from_a_run_that_diverged(module, data, trainer):
    model = module()
    model.configure_model()
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if "lora_B" in name).fill_(math.nan)
    with pytest.raises(MetricError, match=r"the model was loaded with non-finite weights .*lora_B"):
        trainer([Perplexity()]).validate(model, data(**TEXTS), verbose=False)


def test_a_non_finite_reference_is_distinguished_from_the_model(module, data, trainer):
    model = module(reference=Reference("copy", cache=False))
    model.configure_model()
    with torch.no_grad():
        next(model._scored.reference.scorer.model.parameters()).fill_(math.nan)
    with pytest.raises(MetricError, match=r"the reference model's loss on .*\d is nan"):
        trainer([MembershipInference(plots=False)]).validate(model, data(**TEXTS), verbose=False)


@slow
def test_a_model_that_is_mended_is_measured_again(module, data, trainer):
    """No state of the broken run is left in the module."""
    model, texts = module(), data(**TEXTS)
    callbacks = [Perplexity(), MembershipInference(plots=False)]
    [expected, _] = trainer(callbacks).validate(model, texts, verbose=False)
    weight = next(p for name, p in model.named_parameters() if "lora_B" in name)
    with pytest.raises(TrainingError):
        trainer([*callbacks, Spoil(math.nan, after=1)], num_sanity_val_steps=0).fit(model, texts)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.zero_()
    assert weight.isfinite().all()
    [found, _] = trainer(callbacks).validate(model, texts, verbose=False)
    assert found == expected


class Own(pl.LightningModule):
    """A custom module, one of whose texts has a non-finite score."""

    def __init__(self, value):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.value = value

    def validation_step(self, batch, batch_idx):
        logprob = torch.tensor([[0.0, -1.0], [0.0, self.value]])
        mask = torch.tensor([[False, True]] * 2)
        return TokenScores(logprob, mask, mask, torch.tensor([6, 7]), torch.tensor([True, False]))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_module_of_ones_own_is_held_to_the_same(trainer, value):
    batch = {"example_id": torch.tensor([6, 7]), "member": torch.tensor([True, False])}
    loader = DataLoader([0], collate_fn=lambda _: batch)
    with pytest.raises(MetricError, match=rf"the model's loss on example 7 is {'nan' if value != value else 'inf'}"):
        trainer([Perplexity()]).validate(Own(value), loader, verbose=False)


# -- generation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.7), Sampling(top_k=3)])
@pytest.mark.parametrize("share", [1.0, 0.01])
def test_logits_that_are_no_numbers_never_pass_for_an_answer(base, monkeypatch, sampling, share):
    forward = type(base.lm_head).forward

    def broken(self, hidden):
        logits = forward(self, hidden)
        logits[..., : max(1, int(share * logits.shape[-1]))] = math.nan
        return logits

    base.lm_head.forward = broken.__get__(base.lm_head)
    [answer] = decode(base, [torch.tensor([1, 5, 9])], [4], eos=None, sampling=sampling)
    assert len(answer.ids) == 4
    assert int(answer.ids.max()) < base.config.vocab_size
    assert answer.logprob.isnan().all()


@pytest.mark.slow
def test_extraction_reports_no_rate_of_what_was_chosen_among_them(module, data, trainer):
    """The scores are finite; only the passes that generate, with a cache, are not."""
    model = module()
    model.configure_model()

    def broken(self, args, kwargs, output):
        if kwargs.get("past_key_values") is not None or kwargs.get("use_cache"):
            output.logits[:] = math.nan

    model.language_model.register_forward_hook(broken, with_kwargs=True)
    extraction = Extraction(n_members=3, n_heldout=3, prefix=4, base=False)
    with pytest.raises(MetricError, match=r"the text generated for example \d+ \(of \d affected\) has a non-finite"):
        trainer([extraction]).validate(model, data(**TEXTS), verbose=False)
    assert not extraction.metrics


# -- overflowing perplexities --------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_no_infinite_perplexity():
    values = {loss: perplexity._exp(loss) for loss in (0.0, 700.0, 701.0, math.inf)}
    assert values == {0.0: 1.0, 700.0: math.exp(700), 701.0: math.inf, math.inf: math.inf}
    assert math.isnan(perplexity._exp(math.nan))


@pytest.fixture
def surprised(module):
    """A model that is confidently wrong: its loss is thousands of nats per token, and finite."""
    model = module()
    model.configure_model()
    with torch.no_grad():
        model.language_model.get_output_embeddings().weight.mul_(-1000)
    return model


@slow
@pytest.mark.filterwarnings("ignore:.*log_every_n_steps")
def test_a_perplexity_that_overflows_is_infinite_everywhere_and_breaks_nothing(surprised, data, trainer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    keep = MemorizationCheckpoint(dirpath=str(tmp_path / "ckpt"))
    stop = MemorizationEarlyStopping(["val/perplexity > 1e300"], patience=2)
    callbacks = [
        Perplexity(), MembershipInference(), Extraction(n_members=3, n_heldout=3, prefix=4), Extractability(),
        SpanExtraction(), Correlation(), Movers(), Slices(min_size=3), PerplexityDropWarning(), Stopwatch(),
        EpochTable(), Baseline(), PerExampleTable(str(tmp_path / "examples")), keep, stop,
    ]  # fmt: skip
    loggers = [TensorBoardLogger(str(tmp_path), "board", default_hp_metric=False), CSVLogger(str(tmp_path), "csv")]
    t = trainer(callbacks, logger=loggers, max_epochs=4)
    surprised.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    t.fit(surprised, data(**TEXTS))
    assert t.current_epoch == 2
    assert "val/perplexity is inf" in stop.reason
    assert 700 < float(t.callback_metrics["val/loss"]) < math.inf
    with open(Path(loggers[1].log_dir) / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert [float(row["val/perplexity"]) for row in rows] == [math.inf] * 3
    assert [float(row["memorization/perplexity_members"]) for row in rows] == [math.inf] * 3
    assert all(math.isfinite(float(row["memorization/perplexity_gap"])) for row in rows)
    board = EventAccumulator(loggers[0].log_dir)
    board.Reload()
    assert [event.value for event in board.Scalars("val/perplexity")] == [math.inf] * 3
    assert keep.epochs == {"last": 2}


def test_early_stopping_of_lightning_takes_an_infinite_perplexity_for_what_it_is(surprised, data, trainer, capsys):
    stop = EarlyStopping("val/perplexity", check_finite=True)
    surprised.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.0)
    t = trainer([Perplexity(), stop], max_epochs=3)
    t.fit(surprised, data(**TEXTS))
    assert t.current_epoch == 1


# -- the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    small = "--data.train_size 12 --data.heldout_size 8 --data.max_length 24 --data.batch_size 4 --data.check false"

    def run(subcommand, *options):
        with pytest.raises(SystemExit) as stop:
            main([subcommand, "--config", QUICKSTART, *small.split(), *options])
        found = capsys.readouterr()
        assert stop.value.code == 2
        assert "Traceback" not in found.err
        return found.out, [line for line in found.err.splitlines() if line.startswith("error: ")]

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_an_absurd_learning_rate_gives_a_one_line_error(command, tmp_path):
    out, lines = command("fit", "--model.optimizer.init_args.lr", "1e30")
    assert lines == [
        f"error: the training loss is nan at step 2 (epoch 1); lower {LR} or set trainer.gradient_clip_val; "
        "no checkpoint was saved"
    ]
    assert "start" in out  # earlier metrics are kept
    assert not list(tmp_path.rglob("*.ckpt"))
    with open(tmp_path / "logs/quickstart/version_0/metrics.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == ["0"]
