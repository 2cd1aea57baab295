"""Private training in a Lightning fit: the step, the budget, resuming after a clean end and after a crash."""

import json
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lit_mem.adapters import LoRA
from lit_mem.callbacks import (
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    Perplexity,
)
from lit_mem.data.encoding import collate
from lit_mem.errors import CheckpointError, ConfigError, ModelError
from lit_mem.lightning import private_fit, private_log, private_start
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.private_fit import PrivateFit
from lit_mem.privacy import DPSGD
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.ledger import Ledger
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.training.objective import TrainingLoss

QUICK = {"noise_multiplier": 1.0, "batch_size": 6, "accountant": "rdp", "test_seed": 3}


@pytest.fixture(scope="module")
def data(data):
    """As elsewhere, with few held-out texts: training is tested here."""
    return lambda **options: data(**({"heldout_size": 4} | options))


@pytest.fixture(scope="module")
def private(module):
    """Makes modules that train privately, with 4 steps per epoch on 24 texts."""

    def make(seed=1, **options):
        more = {key: options.pop(key) for key in ("adapter", "loss", "gradient_checkpointing") if key in options}
        torch.manual_seed(seed)
        return module(dropout=0.0, privacy=DPSGD(**(QUICK | options)), lr_schedule="constant", **more)

    return make


@pytest.fixture(scope="module")
def untracked(trainer):
    """Makes trainers without validation."""

    def make(callbacks=(), **options):
        return trainer(callbacks, **({"num_sanity_val_steps": 0, "limit_val_batches": 0} | options))

    return make


class Watch(Callback):
    """Records, step by step, the optimizer's input, and the logged metrics."""

    def __init__(self):
        self.gradients, self.losses, self.epsilons, self.sizes, self.batches = [], [], [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(torch.cat([p.grad.flatten() for p in pl_module.parameters() if p.requires_grad]))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.sizes.append(sum(len(part["input_ids"]) for part in batch))
        self.batches.append([int(i) for part in batch for i in part["example_id"]])

    def on_validation_end(self, trainer, pl_module):
        self.epsilons.append(float(trainer.callback_metrics["privacy/epsilon"]))


def assert_same(left, right):
    assert left.keys() == right.keys()
    assert left
    for name in left:
        assert torch.equal(left[name], right[name]), name


# -- the step ----------------------------------------------------------------------------------------------


def test_a_step_in_a_fit_is_dp_sgd(private, data, untracked):
    """Compared with clipping and noise by hand, on the texts drawn."""
    watch, model, texts = Watch(), private(adapter=LoRA(rank=4, dropout=0.0)), data()
    before = {}

    class Keep(Callback):
        def on_train_start(self, t, m):
            before.update({n: p.detach().clone() for n, p in m.named_parameters() if p.requires_grad})

    fit = untracked([watch, Keep()], max_epochs=1)
    fit.fit(model, texts)
    assert fit.global_step == 4 == len(watch.gradients)
    assert len(set(watch.sizes)) > 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in before:
                parameter.copy_(before[name])
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]
    scorer, total = TokenScorer(model.language_model), torch.zeros_like(watch.gradients[0])
    for i in watch.batches[0]:
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(scorer.loss(collate([texts.train[i]])), wanted)])
        total += gradient * min(1.0, 1.0 / gradient.norm())
    stream = DPSGD(**QUICK).stream()
    noise = torch.cat([torch.from_numpy(stream.normal(p.numel(), "noise", 0, k)) for k, p in enumerate(wanted)])
    torch.testing.assert_close(watch.gradients[0], (total + noise.float()) / 6, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_every_batch_of_a_fit_has_as_many_rows(private, data, untracked):
    """The number of rows affects rounding, and must not depend on what else was drawn."""
    model, seen = private(), []
    loss = model._loss_by_text

    def watched(batch):
        seen.append(len(batch["input_ids"]))
        return loss(batch)

    model._loss_by_text = watched
    untracked([], max_epochs=1).fit(model, data(batch_size=5))
    assert set(seen) == {5}


@pytest.mark.slow
def test_counters_schedule_and_optimizer_see_ordinary_steps(module, data, untracked):
    model = module(dropout=0.0, privacy=DPSGD(**QUICK), lr_schedule="linear", lr=1e-2)
    rates = []

    class Rates(Callback):
        def on_train_batch_end(self, t, *args):
            rates.append(t.optimizers[0].param_groups[0]["lr"])

    fit = untracked([Rates()], max_epochs=2)
    fit.fit(model, data())
    assert fit.global_step == 8 == fit.estimated_stepping_batches
    assert rates == pytest.approx([1e-2 * (1 - i / 8) for i in range(1, 9)])
    assert type(fit.optimizers[0]) is torch.optim.AdamW
    assert not any(hasattr(p, "grad_sample") for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [1, 3])
def test_how_many_texts_go_through_the_model_together_makes_no_difference(size, private, data, untracked):
    found = []
    for batch_size in (size, 100):
        watch = Watch()
        model = private(adapter=LoRA(rank=4, dropout=0.0))
        untracked([watch], max_epochs=1).fit(model, data(batch_size=batch_size))
        found.append(torch.stack(watch.gradients))
    assert (found[0] - found[1]).abs().max() < 5e-6


@pytest.mark.slow
def test_empty_draws_give_steps_of_noise_alone(private, data, untracked):
    watch, model = Watch(), private(batch_size=1)
    fit = untracked([watch], max_epochs=1)
    fit.fit(model, data())
    assert fit.global_step == 24 == len(watch.gradients)
    assert 0 in watch.sizes
    empty = watch.sizes.index(0)
    assert watch.losses[empty] == 0
    assert watch.gradients[empty].std() == pytest.approx(1.0, rel=0.1)


@pytest.mark.slow
def test_without_noise_and_with_nothing_to_clip_it_learns(private, data, trainer):
    watch, model = Watch(), private(noise_multiplier=0.0, clipping_norm=1e6)
    trainer([watch], max_epochs=4).fit(model, data())
    first, last = (sum(part) / len(part) for part in (watch.losses[:4], watch.losses[-4:]))
    assert last < first - 0.03
    assert watch.epsilons[-1] == math.inf


@pytest.mark.slow
def test_16_bits_are_nearly_32(private, data, untracked):
    found = []
    for precision in ("32-true", "bf16-mixed"):
        watch, model = Watch(), private(adapter=LoRA(rank=4, dropout=0.0), noise_multiplier=0.0)
        untracked([watch], max_epochs=1, precision=precision).fit(model, data())
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        found.append(watch.gradients[0])
    assert 0 < (found[0] - found[1]).norm() < 0.03 * found[0].norm()


@pytest.mark.slow
def test_gradient_checkpointing_gives_the_same(private, data, untracked):
    found = []
    for on in (False, True):
        watch, model = Watch(), private(adapter=LoRA(rank=4, dropout=0.0), gradient_checkpointing=on)
        untracked([watch], max_epochs=1).fit(model, data())
        found.append(torch.stack(watch.gradients))
    assert (found[0] - found[1]).abs().max() < 5e-6


@pytest.mark.slow
def test_a_floor_and_goldfish_go_with_it(private, data, untracked):
    found = []
    for loss in (TrainingLoss(), TrainingLoss(goldfish_k=2), TrainingLoss(floor=1e6)):
        watch, model = Watch(), private(noise_multiplier=0.0, loss=loss, adapter=LoRA(rank=4, dropout=0.0))
        untracked([watch], max_epochs=1).fit(model, data())
        found.append(watch)
    assert not torch.equal(found[0].gradients[0], found[1].gradients[0])
    assert not found[2].gradients[0].any()
    assert found[2].losses == pytest.approx([found[0].losses[0], *found[2].losses[1:]])


@pytest.mark.slow
def test_callbacks_change_nothing(private, data, trainer, trained, tmp_path):
    weights = []
    for on in (False, True):
        callbacks = [
            Perplexity(),
            MembershipInference(),
            Extraction(n_members=4, n_heldout=4),
            Extractability(),
            MemorizationCheckpoint(dirpath=str(tmp_path)),
        ]
        model = private()
        trainer(callbacks if on else [], max_epochs=2).fit(model, data())
        weights.append(trained(model))
    assert_same(*weights)


# -- the budget --------------------------------------------------------------------------------------------


def test_epsilon_is_logged_at_every_validation_and_is_the_accountants(private, data, trainer):
    watch = Watch()
    trainer([watch], max_epochs=3).fit(private(), data())
    expected = [epsilon([Steps(1.0, 0.25, n)], 1 / 240, "rdp") for n in (0, 4, 8, 12)]
    assert watch.epsilons == pytest.approx(expected, rel=1e-6)
    assert watch.epsilons[0] == 0


@pytest.mark.slow
def test_epsilon_is_logged_without_validation_too(private, data, trainer):
    fit = trainer([], max_epochs=2, limit_val_batches=0)
    fit.fit(private(), data())
    expected = epsilon([Steps(1.0, 0.25, 8)], 1 / 240, "rdp")
    assert float(fit.callback_metrics["privacy/epsilon"]) == pytest.approx(expected)


@pytest.mark.slow
def test_noise_for_a_target_is_chosen(private, data, trainer, caplog):
    watch, model = Watch(), private(target_epsilon=3.0, noise_multiplier=None)
    with caplog.at_level(logging.INFO, "lit_mem"):
        fit = trainer([watch], max_epochs=3)
        fit.fit(model, data())
    assert fit.global_step == 12
    assert 2.9 < watch.epsilons[-1] <= 3.0
    assert "each of 24 texts is in a step with probability 0.25" in caplog.text
    assert "does not cover" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("more", [pytest.param({}, marks=pytest.mark.slow), {"min_epochs": 5}])
def test_training_ends_before_the_target_is_passed(more, private, data, trainer):
    watch = Watch()
    fit = trainer([watch], max_epochs=5, **more)
    fit.fit(private(target_epsilon=5.0, noise_multiplier=0.9), data())
    taken = fit.global_step
    assert 4 < taken < 20
    assert len(watch.gradients) == taken
    steps = [epsilon([Steps(0.9, 0.25, n)], 1 / 240, "rdp") for n in (taken, taken + 1)]
    assert steps[0] <= 5.0 < steps[1]
    assert watch.epsilons[-1] == pytest.approx(steps[0])  # a validation followed


@pytest.mark.slow
def test_epsilon_can_stop_the_run_by_a_threshold(private, module, data, trainer):
    limit = epsilon([Steps(1.0, 0.25, 8)], 1 / 240, "rdp") - 0.01
    stop = MemorizationEarlyStopping([f"privacy/epsilon > {limit}"])
    fit = trainer([stop], max_epochs=9)
    fit.fit(private(), data())
    assert fit.current_epoch == 2
    assert "privacy/epsilon" in stop.reason
    with pytest.raises(ConfigError, match=r"nothing logs 'privacy/epsilon'"):
        trainer([MemorizationEarlyStopping(["privacy/epsilon > 8"])]).fit(module(), data())


def test_the_target_needs_a_number_of_steps(private, data, trainer):
    with pytest.raises(ConfigError, match="needs the number of steps"):
        trainer([], max_epochs=-1).fit(private(target_epsilon=3.0, noise_multiplier=None), data())


# -- resuming ----------------------------------------------------------------------------------------------


class Kill(Callback):
    """Simulates the end of the process right before some step."""

    def __init__(self, step):
        self.step = step

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.step:
            raise KeyError("killed")


class EveryStep(Callback):
    """Saves a checkpoint after each step."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("at", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 7])
def test_a_resumed_run_is_the_uninterrupted_one_with_a_test_seed(at, private, data, trainer, trained, tmp_path):
    whole = private()
    seldom = {"max_epochs": 3, "check_val_every_n_epoch": 3, "num_sanity_val_steps": 0}
    trainer([EveryStep(tmp_path)], default_root_dir=tmp_path / "run", **seldom).fit(whole, data())
    checkpoint = tmp_path / f"step={at}.ckpt"
    # The ledger as of that time: nothing was added later.
    ledger = ledger_below(tmp_path / "run")
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[: at + 1]))
    resumed, watch = private(seed=99), Watch()
    fit = trainer([watch], default_root_dir=tmp_path / "again", **seldom)
    fit.fit(resumed, data(), ckpt_path=str(checkpoint), weights_only=True)
    assert fit.global_step == 12
    assert_same(trained(whole), trained(resumed))
    assert watch.epsilons[-1] == pytest.approx(epsilon([Steps(1.0, 0.25, 12)], 1 / 240, "rdp"))
    assert not (tmp_path / "again").exists()  # it continues the ledger named in its checkpoint
    assert Ledger(ledger).steps == 12


def ledger_below(folder):
    """The ledger written by a run without a logger."""
    (ledger,) = folder.glob("logs/lit_mem/version_*/privacy.jsonl")
    return ledger


def crashed(private, data, trainer, folder, **options):
    """A run with checkpoints every step, resumed from one of them, killed in step 7 (counted from 0)."""
    with pytest.raises(KeyError, match="killed"):
        trainer([EveryStep(folder), Kill(6)], max_epochs=3, default_root_dir=folder / "run").fit(
            private(**options), data()
        )
    return folder / "step=4.ckpt", ledger_below(folder / "run")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_crashed_run_loses_no_step(private, data, trainer, tmp_path):
    checkpoint, ledger = crashed(private, data, trainer, tmp_path)
    # The step in which it was killed is recorded: its noise may have been seen.
    assert Ledger(ledger).steps == 7
    watch = Watch()
    fit = trainer([watch], max_epochs=3)
    fit.fit(private(), data(), ckpt_path=str(checkpoint), weights_only=True)
    assert fit.global_step == 12
    charged = 7 + 8
    assert Ledger(ledger).steps == charged
    assert watch.epsilons[-1] == pytest.approx(epsilon([Steps(1.0, 0.25, charged)], 1 / 240, "rdp"))
    assert watch.epsilons[-1] > epsilon([Steps(1.0, 0.25, 12)], 1 / 240, "rdp")


@pytest.mark.slow
def test_a_resumed_run_has_other_noise_and_other_batches(private, data, untracked, tmp_path):
    checkpoint, _ = crashed(private, data, untracked, tmp_path, test_seed=None)
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        watch = Watch()
        model = private(test_seed=None, adapter=LoRA(rank=4, dropout=0.0, targets=["v", "o"]))
        untracked([watch], max_epochs=2).fit(model, data(), ckpt_path=str(checkpoint), weights_only=True)
        found.append(watch)
    one, two = (torch.stack(watch.gradients).flatten() for watch in found)
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.1
    assert found[0].batches != found[1].batches


@pytest.mark.slow
def test_checkpoints_hold_neither_key_nor_seed(private, data, untracked, tmp_path):
    model = private(test_seed=None)
    keys = []

    class Key(Callback):
        def on_train_start(self, t, m):
            keys.append(m.private.stream.key)

    untracked([EveryStep(tmp_path), Key()], max_epochs=1, default_root_dir=tmp_path).fit(model, data())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert keys[0] not in path.read_bytes()
            assert keys[0].hex().encode() not in path.read_bytes()


@pytest.mark.slow
def test_noise_is_not_chosen_anew_for_more_epochs(private, data, trainer, tmp_path):
    options = {"target_epsilon": 3.0, "noise_multiplier": None}
    trainer([EveryStep(tmp_path)], max_epochs=2, default_root_dir=tmp_path).fit(private(**options), data())
    checkpoint = tmp_path / "step=4.ckpt"
    ledger = ledger_below(tmp_path)
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:5]))
    watch = Watch()
    fit = trainer([watch], max_epochs=6)
    fit.fit(private(**options), data(), ckpt_path=str(checkpoint), weights_only=True)
    assert fit.global_step == 8  # the number of steps that the budget was planned for
    starts = [row for row in map(json.loads, ledger.read_text().splitlines()) if "start" in row]
    assert len(starts) == 2
    assert starts[0]["noise_multiplier"] == starts[1]["noise_multiplier"]
    assert 2.9 < watch.epsilons[-1] <= 3.0


@pytest.mark.slow
def test_a_run_without_its_ledger_does_not_go_on(private, data, untracked, tmp_path):
    checkpoint, ledger = crashed(private, data, untracked, tmp_path)
    ledger.rename(tmp_path / "kept.jsonl")
    with pytest.raises(CheckpointError, match=r"its privacy ledger .* does not exist"):
        untracked([], max_epochs=3).fit(private(), data(), ckpt_path=str(checkpoint), weights_only=True)
    fit = untracked([], max_epochs=2)
    fit.fit(private(ledger=str(tmp_path / "kept.jsonl")), data(), ckpt_path=str(checkpoint), weights_only=True)
    assert Ledger(tmp_path / "kept.jsonl").steps == 7 + 4


@pytest.mark.slow
def test_private_and_plain_checkpoints_do_not_mix(private, module, data, untracked, tmp_path):
    checkpoint, _ = crashed(private, data, untracked, tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.privacy is not set, .* would void"):
        untracked([]).fit(module(lr_schedule="constant"), data(), ckpt_path=str(checkpoint), weights_only=True)
    untracked([]).validate(module(), data(), ckpt_path=str(checkpoint), weights_only=True, verbose=False)
    plain = module(lr_schedule="constant")
    untracked([EveryStep(tmp_path / "plain")], max_epochs=1).fit(plain, data())
    checkpoint = tmp_path / "plain" / "step=4.ckpt"
    with pytest.raises(CheckpointError, match=r"without model\.privacy, so adding noise from here on"):
        untracked([]).fit(private(), data(), ckpt_path=str(checkpoint), weights_only=True)


@pytest.mark.slow
def test_other_texts_are_rejected(private, data, untracked, tmp_path):
    checkpoint, _ = crashed(private, data, untracked, tmp_path)
    with pytest.raises(ConfigError, match="is for 24 training texts, but there are 23"):
        untracked([], max_epochs=3).fit(private(), data(train_size=23), ckpt_path=str(checkpoint), weights_only=True)


@pytest.mark.slow
def test_a_second_fit_with_the_same_ledger_counts_both(private, data, trainer, tmp_path, caplog):
    path = tmp_path / "budget.jsonl"
    for fits in (1, 2):
        watch = Watch()
        with caplog.at_level(logging.WARNING, "lit_mem"):
            trainer([watch], max_epochs=1).fit(private(ledger=str(path)), data())
        assert Ledger(path).steps == 4 * fits
        assert watch.epsilons[-1] == pytest.approx(epsilon([Steps(1.0, 0.25, 4 * fits)], 1 / 240, "rdp"))
    assert f"4 steps were taken before ({path}) and also count" in caplog.text


@pytest.mark.slow
def test_unrelated_runs_without_a_logger_have_a_ledger_each(private, data, trainer, tmp_path):
    """One folder, no logger, twice: the second run plans its noise like the first, and pays for its own steps."""
    planned = []
    for fit in range(2):
        model = private(noise_multiplier=None, target_epsilon=8.0)
        watch = Watch()
        trainer([watch], max_epochs=1, default_root_dir=tmp_path).fit(model, data())
        ledger = tmp_path / "logs" / "lit_mem" / f"version_{fit}" / "privacy.jsonl"
        assert Ledger(ledger).steps == 4
        planned.append((json.loads(ledger.read_text().splitlines()[0])["noise_multiplier"], watch.epsilons[-1]))
    assert planned[0] == planned[1]
    assert planned[0][1] == pytest.approx(epsilon([Steps(planned[0][0], 0.25, 4)], 1 / 240, "rdp"))


@pytest.mark.slow
def test_a_dry_run_writes_nothing(private, data, trainer, tmp_path):
    fit = trainer([], fast_dev_run=True, default_root_dir=tmp_path)
    fit.fit(private(), data())
    assert fit.global_step == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Found keys that are in the model state dict but not in the checkpoint")
def test_a_second_fit_of_the_same_weights_keeps_all_steps(private, data, trainer, tmp_path):
    """Whether the module is reused, or loaded from the first one's checkpoint."""
    model, watch = private(), Watch()
    first = trainer([], max_epochs=1, default_root_dir=tmp_path / "a")
    first.fit(model, data())
    first.save_checkpoint(tmp_path / "after.ckpt")
    loaded = type(model).load_from_checkpoint(
        tmp_path / "after.ckpt", model_id="asset:tiny_llama", adapter=model.adapter, privacy=model.private.options,
        lr_schedule="constant", weights_only=True, strict=False,
    )  # fmt: skip
    for each, steps in ((model, 8), (loaded, 12)):
        trainer([watch], max_epochs=1).fit(each, data())
        assert Ledger(ledger_below(tmp_path / "a")).steps == steps
        assert watch.epsilons[-1] == pytest.approx(epsilon([Steps(1.0, 0.25, steps)], 1 / 240, "rdp"))


# -- rejections --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"accumulate_grad_batches": 2}, "a step is one draw from all texts"),
        ({"gradient_clip_val": 1.0}, "does not bound single text"),
        ({"precision": "bf16-true"}, "rounding breaks the bound"),
    ],
)
def test_options_are_rejected_with_the_reason(chosen, message, private, data, trainer):
    with pytest.raises(ConfigError, match=message):
        trainer([], **chosen).fit(private(), data())


@pytest.mark.parametrize("chosen", [{"group_by_length": True}, {"deduplicate": "near"}, {"deduplicate": "exact"}])
def test_options_of_the_data_are_rejected(chosen, private, data, trainer):
    with pytest.raises(ConfigError, match=r"incompatible with model\.privacy"):
        trainer([]).fit(private(), data(**chosen))


def test_adapters_without_per_example_gradients_are_rejected(private, data, trainer):
    with pytest.raises(ModelError, match="lora_magnitude_vector"):
        trainer([]).fit(private(adapter=LoRA(rank=4, dora=True, dropout=0.0)), data())


def test_a_custom_loader_is_rejected_unless_it_samples(private, data, trainer):
    made = data()
    fit = trainer([], max_epochs=1)
    plain = data()
    plain.trainer = fit

    class Shuffled(type(made)):
        def train_dataloader(self):
            return torch.utils.data.DataLoader(self.train, batch_size=4, shuffle=True, collate_fn=collate)

    made.__class__ = Shuffled
    with pytest.raises(ConfigError, match="sampler is RandomSampler"):
        fit.fit(private(), made)


def test_validation_alone_needs_nothing_of_it(private, data, trainer):
    metrics = trainer([Perplexity()]).validate(private(), data(), verbose=False)
    assert "val/loss" in metrics[0]
    assert "privacy/epsilon" not in metrics[0]


# -- weights that were trained privately, and clean-up ---------------------------------------------------------------


@pytest.fixture(scope="module")
def private_run(private, data, untracked, tmp_path_factory):
    """A checkpoint after four private steps, and its ledger."""
    folder = tmp_path_factory.mktemp("private_run")
    untracked([EveryStep(folder)], max_epochs=1, default_root_dir=folder).fit(private(), data())
    return folder / "step=4.ckpt", ledger_below(folder)


@pytest.mark.parametrize("by", ["load_from_checkpoint", pytest.param("validate", marks=pytest.mark.slow)])
def test_private_weights_are_not_trained_plainly(by, private_run, module, data, untracked, tmp_path):
    before = torch.load(private_run[0], weights_only=True)["lit_mem"]["privacy"]
    run = untracked([])
    if by == "validate":
        model = module(dropout=0.0)
        run.validate(model, data(), ckpt_path=str(private_run[0]), weights_only=True, verbose=False)
        run.save_checkpoint(tmp_path / "again.ckpt")
        assert torch.load(tmp_path / "again.ckpt", weights_only=True)["lit_mem"]["privacy"] == before
    else:
        model = CausalLM.load_from_checkpoint(private_run[0])
    with pytest.raises(ConfigError, match=r"^model\.privacy is not set, but .*privacy=DPSGD"):
        untracked([], max_epochs=1).fit(model, data())


@pytest.mark.parametrize("by", ["load_from_checkpoint", pytest.param("validate", marks=pytest.mark.slow)])
def test_private_weights_go_on_with_what_they_have_spent(by, private_run, private, data, untracked, tmp_path):
    taken = Ledger(private_run[1]).steps
    if by == "validate":
        model = private()
        untracked([]).validate(model, data(), ckpt_path=str(private_run[0]), weights_only=True, verbose=False)
    else:
        model = CausalLM.load_from_checkpoint(private_run[0], privacy=DPSGD(**QUICK))
    untracked([], max_epochs=1).fit(model, data())
    assert Ledger(private_run[1]).steps == taken + 4


@pytest.mark.slow
def test_a_loaded_adapters_dropout_is_turned_off_after_loading_too(private, data, untracked, base, tmp_path):
    LoRA(rank=2, targets=["v"], dropout=0.3).wrap(base).save_pretrained(tmp_path / "adapter")
    folder = {"adapter_path": str(tmp_path / "adapter"), "lr_schedule": "constant"}
    model = CausalLM(model_id="asset:tiny_llama", privacy=DPSGD(**QUICK, allow_unaccounted_start=True), **folder)
    untracked([EveryStep(tmp_path)], max_epochs=1, default_root_dir=tmp_path).fit(model, data())
    again = CausalLM.load_from_checkpoint(tmp_path / "step=4.ckpt", privacy=DPSGD(**QUICK))
    untracked([], max_epochs=1).fit(again, data())
    assert again.private.state()["history"] == [[1.0, 0.25, 8]]


def dropouts(model):
    return [layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]


@pytest.mark.slow
@pytest.mark.parametrize("at", ["begin", "step"])
def test_what_was_turned_off_is_turned_on_after_an_exception(at, module, data, untracked, base, tmp_path, monkeypatch):
    LoRA(rank=2, targets=["v"], dropout=0.3).wrap(base).save_pretrained(tmp_path / "adapter")
    privacy = DPSGD(**QUICK, allow_unaccounted_start=True)
    model = module(adapter_path=str(tmp_path / "adapter"), privacy=privacy, lr_schedule="constant")
    off = []

    def killed(*_):
        off.extend(dropouts(model))
        raise KeyError("killed")

    if at == "begin":
        monkeypatch.setattr(private_fit, "log_start", killed)
    else:
        monkeypatch.setattr(PrivateFit, "step", killed)
    with pytest.raises(KeyError, match="killed"):
        untracked([], max_epochs=1, default_root_dir=tmp_path).fit(model, data())
    assert set(off) == {0.0}
    assert 0.3 in dropouts(model)
    assert model.private.training is None


@pytest.mark.slow
def test_steps_of_a_dry_run_are_written_down_by_the_run_after_it(private, data, untracked, tmp_path):
    model = private()
    untracked([], fast_dev_run=1).fit(model, data())
    options = {"max_epochs": 1, "default_root_dir": tmp_path}
    untracked([EveryStep(tmp_path)], **options).fit(model, data())
    checkpoint, ledger = tmp_path / "step=4.ckpt", ledger_below(tmp_path)
    assert Ledger(ledger).steps == 1 + 4
    assert torch.load(checkpoint, weights_only=True)["lit_mem"]["privacy"]["history"] == [[1.0, 0.25, 5]]
    untracked([], max_epochs=2).fit(private(), data(), ckpt_path=str(checkpoint), weights_only=True)
    assert Ledger(ledger).steps == 5 + 4


@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_go_on_with_the_ledger_that_rank_zero_knows(rank, tmp_path, monkeypatch):
    """`run_folder` is collective, so no rank may call it alone."""
    Ledger(tmp_path / "privacy.jsonl").start(24, 1.0, 0.25)
    known = {"ledger": str(tmp_path / "privacy.jsonl"), "ledger_id": Ledger(tmp_path / "privacy.jsonl").id}
    mine = known if rank == 0 else {"ledger": "", "ledger_id": ""}
    spent = {"history": [], "noise_multiplier": 1.0, "texts": 24, **mine}
    sent = []
    strategy = SimpleNamespace(broadcast=lambda value: sent.append(value) or True)  # the value sent by rank zero
    monkeypatch.setattr(private_start, "run_folder", lambda trainer: pytest.fail("only some ranks call it"))
    opened = private_start.opening(SimpleNamespace(strategy=strategy, ckpt_path=None), 24, None, spent, dry=False)
    assert sent == [rank == 0]
    if rank == 0:
        assert opened().id == known["ledger_id"]


@pytest.mark.parametrize(("rows", "computed"), [(1, 0), (64, 1), (65, 0), (1000, 0)])
def test_no_bound_is_computed_for_very_large_groups(rows, computed, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(private_log, "group_epsilon", lambda history, delta, k: calls.append(k) or 1.0)
    with caplog.at_level(logging.INFO, "lit_mem"):
        private_log.log_group([], 1e-5, rows, "Private training")
    assert calls == [rows] * computed
    assert (f"up to {rows} rows" in caplog.text) == (rows > 1)
    assert ("not computed above 64 rows" in caplog.text) == (rows > 64)
