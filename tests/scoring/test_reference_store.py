"""Reference scores on disk: computed once for all runs, and never served for other data."""

import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lit_mem.adapters import LoRA
from lit_mem.callbacks import MembershipInference
from lit_mem.models.base_loader import BaseLoader
from lit_mem.scoring.reference_scores import Reference
from lit_mem.scoring.reference_store import ReferenceStore, batch_key


def measured(module, data, trainer, sizes=None, **kwargs):
    """A module after a validation, and its metrics."""
    torch.manual_seed(1)
    model = module(**kwargs)
    t = trainer([MembershipInference(plots=False)])
    t.validate(model, data(**(sizes or {})), verbose=False)
    return model, {name: float(value) for name, value in t.callback_metrics.items()}


def files():
    return sorted(Path(os.environ["LIT_MEM_CACHE"]).rglob("*.safetensors"))


def test_a_second_run_computes_none_and_measures_the_same_to_the_last_bit(module, data, trainer):
    first, metrics = measured(module, data, trainer)
    second, again = measured(module, data, trainer)
    assert first.reference_cache.computed == 40
    assert second.reference_cache.computed == 0
    assert second.reference_cache.store.loaded == len(files()) > 0
    assert again == metrics
    assert again["mia/reference_auroc"] == 0.5


@pytest.mark.slow
def test_a_run_with_another_adapter_shares_the_scores(module, data, trainer):
    measured(module, data, trainer)
    other, metrics = measured(module, data, trainer, adapter=LoRA(rank=2, targets=["q", "up"]))
    assert other.reference_cache.computed == 0
    assert metrics["mia/reference_auroc"] == 0.5


@pytest.mark.slow
def test_a_frozen_copy_and_an_adapter_turned_off_share_the_scores(module, data, trainer):
    _, metrics = measured(module, data, trainer)
    copy, again = measured(module, data, trainer, reference=Reference("copy"))
    assert copy.reference_cache.computed == 0
    assert again == metrics


@pytest.mark.slow
def test_batches_made_otherwise_are_computed_anew(module, data, trainer):
    """The same texts in another batch may differ by rounding, and then an untrained adapter from its base."""
    measured(module, data, trainer)
    other, metrics = measured(module, data, trainer, sizes={"scoring_tokens": 150})
    assert other.reference_cache.computed > 0
    assert metrics["mia/reference_auroc"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["weights", *(pytest.param(change, marks=pytest.mark.slow) for change in ("dtype", "threads"))]
)
def test_another_setting_is_another_folder(module, data, trainer, monkeypatch, change):
    measured(module, data, trainer)
    if change == "dtype":
        other, _ = measured(module, data, trainer, dtype="bfloat16")
    elif change == "threads":
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(before + 1)
            other, _ = measured(module, data, trainer)
        finally:
            torch.set_num_threads(before)
    else:
        load = BaseLoader.load

        def perturbed(self, *args):
            base = load(self, *args)
            with torch.no_grad():
                next(base.parameters())[5, 5] += 1.0
            return base

        monkeypatch.setattr(BaseLoader, "load", perturbed)
        other, _ = measured(module, data, trainer)
    assert other.reference_cache.computed == 40


@pytest.mark.slow
def test_a_way_out(module, data, trainer):
    model, _ = measured(module, data, trainer, reference=Reference(cache=False))
    assert model.reference_cache.computed == 40
    assert not files()


def test_files_hold_numbers_and_no_tokens(module, data, trainer):
    measured(module, data, trainer)
    for path in files():
        with safe_open(path, "pt") as file:
            assert list(file.keys()) == ["sealed"]
            assert set(file.metadata()) == {"sha256"}
    assert not [p for p in Path(os.environ["LIT_MEM_CACHE"]).rglob("*") if p.is_file() and p not in files()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["changed", *(pytest.param(damage, marks=pytest.mark.slow) for damage in ("cut", "shape"))]
)
def test_a_damaged_file_is_computed_again(module, data, trainer, caplog, damage):
    logging.getLogger("lit_mem").propagate = True
    _, metrics = measured(module, data, trainer)
    path = files()[0]
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-10])
    elif damage == "changed":
        path.write_bytes(content[:-40] + bytes([content[-40] ^ 255]) + content[-39:])
    else:
        store = ReferenceStore(path.parent.parent, {})
        store.folder = path.parent
        store.save(bytes.fromhex(path.stem), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    other, again = measured(module, data, trainer)
    assert 0 < other.reference_cache.computed < 40
    assert again == metrics
    if damage != "cut":
        assert f"{path} is damaged" in caplog.text
    assert path.read_bytes() == content  # and is restored


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_done_without(module, data, trainer, caplog, monkeypatch, tmp_path):
    logging.getLogger("lit_mem").propagate = True
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "file"))
    model, metrics = measured(module, data, trainer)
    assert model.reference_cache.computed == 40
    assert metrics["mia/reference_auroc"] == 0.5
    assert caplog.text.count("Reference scores are not stored for later runs") == 1


def test_runs_at_the_same_time_leave_whole_files(tmp_path):
    logprob, hit = torch.randn(40, 60), torch.rand(40, 60) > 0.5
    stores = [ReferenceStore(tmp_path, {"a": "b"}) for _ in range(4)]
    seen = []

    def work(store):
        for _ in range(30):
            store.save(b"key", logprob, hit)
            seen.append(store.load(b"key", (40, 60)))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 120
    assert all(torch.equal(found[0], logprob) and torch.equal(found[1], hit) for found in seen)
    assert [path.name for path in stores[0].folder.iterdir()] == [f"{b'key'.hex()}.safetensors"]


def test_keys_depend_on_tokens_scored_positions_and_shape():
    ids, scored = torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.bool)
    keys = {batch_key(ids, scored), batch_key(ids + 1, scored), batch_key(ids.view(3, 2), scored.view(3, 2))}
    other = scored.clone()
    other[0, 0] = False
    keys.add(batch_key(ids, other))
    assert len(keys) == 4
    assert batch_key(ids.clone(), scored.clone()) in keys


def test_no_two_settings_are_sealed_alike(tmp_path):
    """Otherwise combining two files of one batch would reveal both models' scores."""
    ids, scored = torch.arange(6).view(2, 3), torch.ones(2, 3, dtype=torch.bool)
    key, content = batch_key(ids, scored), []
    for dtype in ("float32", "bfloat16"):
        store = ReferenceStore(tmp_path, {"loaded": dtype})
        store.save(key, torch.zeros(2, 3), scored)
        [path] = store.folder.iterdir()
        with safe_open(path, "pt") as file:
            content.append(file.get_tensor("sealed"))
        assert torch.equal(store.load(key, (2, 3))[0], torch.zeros(2, 3))
    assert not torch.equal(*content)
