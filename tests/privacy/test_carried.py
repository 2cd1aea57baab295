"""The budget follows the weights: from the exported adapter of a run to the run that starts from it."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lit_mem.adapters import LoRA
from lit_mem.callbacks import EpochTable, MemorizationCheckpoint
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.files.places import cache_folder
from lit_mem.lightning.module import CausalLM
from lit_mem.privacy import DPSGD
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.carried import ONLY_LATER, ledger_beside
from lit_mem.privacy.corpus import KEY
from lit_mem.privacy.ledger import Ledger

OPTIONS = {"noise_multiplier": 1.0, "batch_size": 6, "accountant": "rdp"}
FEW = {"num_sanity_val_steps": 0, "limit_val_batches": 2}


class Watch(Callback):
    """Keeps the last epsilon that was logged."""

    epsilon = None

    def on_validation_end(self, trainer, pl_module):
        self.epsilon = float(trainer.callback_metrics["privacy/epsilon"])


@pytest.fixture(scope="module")
def run(data, trainer):
    """Fits once; gives the module, what it logged, and the folder with its ledger."""

    def make(folder, module_options=(), data_options=(), epochs=1, callbacks=(), ckpt=None, **privacy):
        torch.manual_seed(1)
        options = {"adapter": LoRA(rank=2, dropout=0.0, targets=["v"]), "privacy": DPSGD(**(OPTIONS | privacy))}
        options |= {"lr_schedule": "constant", "model_id": "asset:tiny_llama"} | dict(module_options)
        model, watch = CausalLM(**options), Watch()
        fit = trainer([watch, *callbacks], max_epochs=epochs, default_root_dir=folder, **FEW)
        fit.fit(model, data(**dict(data_options)), ckpt_path=ckpt, weights_only=True)
        return model, watch, fit

    return make


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of a private run of four steps, with its checkpoint and exported adapter."""
    root = tmp_path_factory.mktemp("exported")
    run(root, callbacks=[MemorizationCheckpoint()])
    shutil.copy(cache_folder(KEY), root)
    return root / "logs" / "lit_mem" / "version_0"


@pytest.fixture
def moved(exported, tmp_path):
    """The exported adapter only, as published."""
    return Path(shutil.copytree(exported / "checkpoints" / "last-adapter", tmp_path / "moved"))


def of_steps(*history):
    return pytest.approx(epsilon([Steps(*steps) for steps in history], 1 / 240, "rdp"))


def ledger_of_run(folder, version=0):
    return folder / "logs" / "lit_mem" / f"version_{version}" / "privacy.jsonl"


def test_an_exported_adapter_carries_what_was_spent_and_no_digest_of_the_texts(exported, moved):
    own, carried = Ledger(exported / "privacy.jsonl"), Ledger(moved / "privacy.jsonl")
    assert own.history == carried.history == (Steps(1.0, 0.25, 4),)
    assert [(start.id, start.texts) for start in carried.starts] == [(own.id, 24)]
    assert own.starts[0].corpus
    assert carried.starts[0].corpus == ""
    (row,) = map(json.loads, (moved / "privacy.jsonl").read_text().splitlines())
    assert row.keys() == {"start", "texts", "noise_multiplier", "sample_rate", "taken", "chain"}
    assert "| Differential privacy | ε = " in (moved / "README.md").read_text("utf-8")


def test_a_run_from_a_private_adapter_counts_its_steps(run, moved, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "lit_mem"):
        _, watch, _ = run(tmp_path, {"adapter_path": str(moved)}, noise_multiplier=2.0)
    assert watch.epsilon == of_steps((1.0, 0.25, 4), (2.0, 0.25, 4))
    made = Ledger(ledger_of_run(tmp_path))
    assert made.history == (Steps(1.0, 0.25, 4), Steps(2.0, 0.25, 4))
    assert made.id == Ledger(moved / "privacy.jsonl").id
    assert f"4 of these steps trained the weights that this run starts from ({moved}" in caplog.text
    assert ONLY_LATER not in caplog.text


def test_a_target_that_the_adapter_has_spent_is_rejected(run, moved, tmp_path):
    with pytest.raises(ConfigError, match=r"target_epsilon is 1, but .* is already spent in 4 steps"):
        run(tmp_path, {"adapter_path": str(moved)}, target_epsilon=1.0)


@pytest.mark.slow
def test_steps_that_the_given_ledger_has_already_count_once(run, exported, moved, tmp_path):
    ledger = Path(shutil.copy(exported / "privacy.jsonl", tmp_path / "budget.jsonl"))
    _, watch, _ = run(tmp_path, {"adapter_path": str(moved)}, ledger=str(ledger))
    assert watch.epsilon == of_steps((1.0, 0.25, 8))
    assert Ledger(ledger).steps == 8


@pytest.mark.slow
def test_a_resumed_run_counts_the_adapters_steps_once(run, moved, tmp_path):
    checkpoint = tmp_path / "after.ckpt"
    _, _, fit = run(tmp_path, {"adapter_path": str(moved)})
    fit.save_checkpoint(checkpoint)
    _, watch, _ = run(tmp_path, {"adapter_path": str(moved)}, epochs=2, ckpt=str(checkpoint))
    assert watch.epsilon == of_steps((1.0, 0.25, 12))
    assert Ledger(ledger_of_run(tmp_path)).steps == 12


@pytest.mark.slow
def test_dry_runs_from_an_adapter_count_its_steps_once(run, moved, data, trainer, tmp_path):
    model, _, _ = run(tmp_path, {"adapter_path": str(moved)})
    for _ in range(2):
        trainer([], fast_dev_run=1).fit(model, data())
    trainer([], max_epochs=1, **FEW).fit(model, data())
    assert Ledger(ledger_of_run(tmp_path)).steps == 4 + 4 + 2 + 4


@pytest.mark.slow
@pytest.mark.parametrize("texts", [{"train_size": 20}, pytest.param({"seed": 5}, marks=pytest.mark.slow)])
def test_steps_on_other_texts_count_too_and_it_is_said(texts, run, moved, exported, tmp_path, caplog):
    # The ledger of the run has the digest of its texts; the one beside the adapter has not.
    (moved / "privacy.jsonl").write_text((exported / "privacy.jsonl").read_text())
    cache_folder(KEY).parent.mkdir()
    shutil.copy(exported.parents[2] / KEY, cache_folder(KEY))  # both runs are of one user
    n = texts.get("train_size", 24)
    with caplog.at_level(logging.WARNING, "lit_mem"):
        _, watch, _ = run(tmp_path, {"adapter_path": str(moved)}, texts | {"check": False}, batch_size=5)
    expected = [Steps(1.0, 0.25, 4), Steps(1.0, 5 / n, Ledger(ledger_of_run(tmp_path)).steps - 4)]
    assert watch.epsilon == pytest.approx(epsilon(expected, 1 / (10 * n), "rdp"))
    assert "4 earlier steps were taken on another training set" in caplog.text


@pytest.fixture
def plain_adapter(base, tmp_path):
    LoRA(rank=2, targets=["v"], dropout=0.0).wrap(base).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_weights_that_were_trained_without_a_ledger_are_rejected(run, plain_adapter, tmp_path):
    """Plain training, then private training of a few steps of much noise: epsilon near 0 beside an AUROC of 0.96."""
    with pytest.raises(
        ConfigError, match=r"^model\.adapter_path .*plain has no privacy\.jsonl, .*allow_unaccounted_start"
    ):
        run(tmp_path, {"adapter_path": str(plain_adapter)})


def test_a_whole_model_that_a_run_has_exported_is_rejected_likewise(run, base, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "best-adapter")
    base.save_pretrained(tmp_path / "best-adapter")
    (tmp_path / "best-adapter" / "lit_mem.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^model\.model_id .*best-adapter has no privacy\.jsonl"):
        run(tmp_path, {"model_id": str(tmp_path / "best-adapter")})


@pytest.mark.slow
def test_with_the_option_log_ledger_and_export_say_what_is_not_covered(
    run, plain_adapter, data, trainer, tmp_path, caplog, capsys
):
    with caplog.at_level(logging.WARNING, "lit_mem"):
        _, watch, _ = run(
            tmp_path, {"adapter_path": str(plain_adapter)}, callbacks=[MemorizationCheckpoint(), EpochTable()],
            allow_unaccounted_start=True,
        )  # fmt: skip
    assert caplog.text.count(ONLY_LATER) == 2  # at the start and at the end
    table = capsys.readouterr().out.splitlines()
    assert table[table.index(ONLY_LATER) + 1].split()[-2:] == ["epsilon", "<="]
    assert watch.epsilon == of_steps((1.0, 0.25, 4))
    assert Ledger(ledger_of_run(tmp_path)).unaccounted
    adapter = ledger_of_run(tmp_path).with_name("checkpoints") / "last-adapter"
    assert Ledger(adapter / "privacy.jsonl").unaccounted
    # Starting from it requires the option again, and resuming its checkpoint logs a reminder.
    with pytest.raises(ConfigError, match=r"has a privacy\.jsonl that does not cover all of its training"):
        run(tmp_path / "next", {"adapter_path": str(adapter)})
    checkpoint = str(adapter.with_name("last.ckpt"))
    model = CausalLM.load_from_checkpoint(checkpoint, privacy=DPSGD(**OPTIONS), lr_schedule="constant")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lit_mem"):
        trainer([], max_epochs=1, **FEW).fit(model, data())
    assert ONLY_LATER in caplog.text


def test_a_changed_ledger_beside_an_adapter_is_rejected(run, moved, module, data, trainer, tmp_path):
    path = moved / "privacy.jsonl"
    path.write_text(path.read_text().replace('"noise_multiplier": 1.0', '"noise_multiplier": 100.0'))
    with pytest.raises(CheckpointError, match=r"moved/privacy\.jsonl, line 1: found another hash"):
        run(tmp_path, {"adapter_path": str(moved)})
    with pytest.raises(CheckpointError, match=r"moved/privacy\.jsonl, line 1: found another hash"):
        trainer([], **FEW).validate(module(adapter_path=str(moved)), data(), verbose=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("by", ["adapter", pytest.param("checkpoint", marks=pytest.mark.slow)])
def test_validation_of_a_private_adapter_logs_its_epsilon(by, moved, exported, module, data, trainer, caplog):
    model = module(adapter_path=str(moved)) if by == "adapter" else module(rank=2, targets=["v"], dropout=0.0)
    ckpt = None if by == "adapter" else str(exported / "checkpoints" / "last.ckpt")
    with caplog.at_level(logging.INFO, "lit_mem"):
        trainer([], **FEW).validate(model, data(), ckpt_path=ckpt, weights_only=True, verbose=False)
    spent = epsilon([Steps(1.0, 0.25, 4)], 1 / 240)
    assert f"was trained with differential privacy: 4 steps, epsilon <= {spent:.4g} at delta 0.00417" in caplog.text


@pytest.mark.slow
def test_plain_training_from_a_private_adapter_is_warned_of(moved, module, data, trainer, caplog):
    with caplog.at_level(logging.WARNING, "lit_mem"):
        trainer([], max_epochs=1, **FEW).fit(module(adapter_path=str(moved), lr_schedule="constant"), data())
    assert "was trained with differential privacy, but model.privacy is not set" in caplog.text


def test_the_ledger_of_a_run_is_not_that_of_an_adapter_that_was_put_beside_its_checkpoints(
    run, exported, module, tmp_path
):
    folder = Path(shutil.copytree(exported, tmp_path / "run"))
    adapter = folder / "checkpoints" / "last-adapter"
    (adapter / "privacy.jsonl").unlink()
    assert (folder / "privacy.jsonl").is_file()
    assert ledger_beside(adapter) is None
    with pytest.raises(ConfigError, match=r"has no privacy\.jsonl"):
        run(tmp_path / "next", {"adapter_path": str(adapter)})


@pytest.mark.slow
def test_a_merged_model_carries_its_ledger(run, tmp_path):
    run(tmp_path, callbacks=[MemorizationCheckpoint(merge=True)])
    merged = ledger_of_run(tmp_path).with_name("checkpoints") / "best-merged"
    _, watch, _ = run(tmp_path / "next", {"model_id": str(merged)})
    assert watch.epsilon == of_steps((1.0, 0.25, 8))


@pytest.mark.parametrize("content", ["", '{"start": "89f0'], ids=["empty", "torn"])
def test_a_ledger_without_a_start_is_not_taken_for_one_that_covers_the_training(
    content, run, moved, module, data, trainer, tmp_path
):
    (moved / "privacy.jsonl").write_text(content)
    with pytest.raises(CheckpointError, match=r"moved/privacy\.jsonl has no start of a run"):
        run(tmp_path, {"adapter_path": str(moved)})
    with pytest.raises(CheckpointError, match=r"moved/privacy\.jsonl has no start of a run"):
        trainer([], **FEW).validate(module(adapter_path=str(moved)), data(), verbose=False)


@pytest.mark.slow
def test_lines_cut_off_at_the_end_of_an_exported_ledger_are_noticed(run, moved, tmp_path):
    run(tmp_path, {"adapter_path": str(moved)}, callbacks=[MemorizationCheckpoint()])
    second = ledger_of_run(tmp_path).with_name("checkpoints") / "last-adapter"
    assert ledger_beside(second).steps == 8
    first, *_ = (second / "privacy.jsonl").read_text().splitlines(keepends=True)
    (second / "privacy.jsonl").write_text(first)
    with pytest.raises(CheckpointError, match=r"last-adapter/privacy\.jsonl has 4 of 8 steps"):
        ledger_beside(second)
    (second / "lit_mem.json").write_text("{}")  # of an adapter that does not record it
    assert ledger_beside(second).steps == 4
