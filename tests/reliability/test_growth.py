"""Over many epochs, and over many runs in one process, only the logs grow."""

import ctypes
import gc
import os
import statistics
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mem.audit.measures.membership import default_attacks
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

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc"),
]

TEXTS = {"train_size": 8, "heldout_size": 8, "batch_size": 4, "max_length": 20, "scoring_tokens": 512}
EPOCHS, WARM = 200, 40
KIB_AN_EPOCH = 4
"""Maximum growth of memory per epoch, in KiB. A hundred retained metrics take 3 KiB as floats, 50 KiB as tensors; an
unreleased plot takes a hundred and more."""


def everything(folder, draw=True, lean=False):
    """All callbacks; `lean`: with few metrics each, as Lightning takes half a millisecond to log one."""
    attacks = {name: default_attacks()[name] for name in ("loss", "reference", "min_k_plus_plus")} if lean else None
    only = {"attacks": ["reference"], "measures": ["exact_rate"], "length": False} if lean else {}
    return [
        Perplexity(),
        MembershipInference(attacks, plots=draw),
        Extraction(n_members=4, n_heldout=4, prefix=4, every_n_validations=5 if lean else 1),
        Extractability(),
        SpanExtraction(),
        Correlation(["mia/loss"] if lean else None, plots=draw),
        Movers(),
        Slices(min_size=3, plots=draw, **only),
        PerplexityDropWarning(share=0.99),
        Stopwatch(),
        EpochTable(),
        Baseline(),
        PerExampleTable(str(folder / "examples"), every_n_validations=20),
        MemorizationEarlyStopping(["mia/reference_auroc > 2"]),
        MemorizationCheckpoint(dirpath=str(folder / "checkpoints")),
    ]


def loggers(folder):
    board = TensorBoardLogger(str(folder), "run", version=0, default_hp_metric=False)
    return [board, CSVLogger(str(folder), "run", version=0, flush_logs_every_n_steps=1)]


def resident_kib():
    """Memory of this process, without memory retained by the allocator."""
    ctypes.CDLL(None).malloc_trim(0)
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


def objects():
    """Number of live objects of the most frequent types."""
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

    kinds = {"tensors": torch.Tensor, "modules": torch.nn.Module, "figures": Figure, "artists": Artist}
    counted = Counter()
    for each in gc.get_objects():
        for name, kind in kinds.items():
            counted[name] += issubclass(type(each), kind)
    return counted


class Look(Callback):
    """Records the process's memory and objects every few epochs, and the duration of each epoch."""

    def __init__(self, every):
        self.every, self.seconds, self.looks, self._began = every, [], [], None

    def on_train_epoch_start(self, trainer, pl_module):
        self._began = time.process_time()

    def on_train_epoch_end(self, trainer, pl_module):
        self.seconds.append(time.process_time() - self._began)
        if trainer.current_epoch % self.every == self.every - 1:
            gc.collect()
            handles = len(os.listdir("/proc/self/fd"))
            self.looks.append(
                {
                    "epoch": trainer.current_epoch,
                    "KiB": resident_kib(),
                    "handles": handles,
                    "threads": threading.active_count(),
                    "metrics": len(trainer.callback_metrics),
                    "objects": objects(),
                    "all objects": len(gc.get_objects()),
                    "log": sum(path.stat().st_size for path in Path(trainer.loggers[0].log_dir).iterdir()),
                }
            )


def slope(looks, name):
    """Least-squares slope per epoch."""
    return statistics.linear_regression([look["epoch"] for look in looks], [look[name] for look in looks]).slope


@pytest.fixture(scope="module")
def looks(module, data, trainer, tmp_path_factory):
    """A long run with everything on, and its records after warming up."""
    folder, look = tmp_path_factory.mktemp("long"), Look(every=10)
    torch.manual_seed(1)
    t = trainer([*everything(folder, draw=False, lean=True), look], max_epochs=EPOCHS, logger=loggers(folder))
    t.fit(module(lr=1e-5), data(**TEXTS))
    # Not the callback itself: Lightning gives each the module's `log`, which references the whole model.
    return [each for each in look.looks if each["epoch"] >= WARM], look.seconds


@pytest.mark.slow
@pytest.mark.exhaustive
def test_memory_does_not_grow(looks):
    later, _ = looks
    assert len(later) == (EPOCHS - WARM) // 10
    growth = slope(later, "KiB")
    assert growth < KIB_AN_EPOCH


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["handles", "threads", "metrics", "objects"])
def test_what_can_be_counted_stays_the_same(looks, name):
    later, _ = looks
    assert all(look[name] == later[0][name] for look in later)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_epoch_adds_no_python_objects(looks):
    growth = slope(looks[0], "all objects")
    assert growth < 1


@pytest.mark.slow
@pytest.mark.exhaustive
def test_logs_grow_by_as_much_each_epoch(looks):
    later, _ = looks
    halves = later[: len(later) // 2 + 1], later[len(later) // 2 :]
    first, second = ((half[-1]["log"] - half[0]["log"]) / (half[-1]["epoch"] - half[0]["epoch"]) for half in halves)
    assert second == pytest.approx(first, rel=0.02)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_plots_are_closed(module, data, trainer, tmp_path):
    import matplotlib.pyplot as plt

    look = Look(every=1)
    t = trainer([*everything(tmp_path, lean=True), look], max_epochs=6, logger=loggers(tmp_path))
    t.fit(module(), data(**TEXTS))
    assert not plt.get_fignums()
    counted = [each["objects"] for each in look.looks[2:]]
    assert all(each["figures"] == each["artists"] == 0 for each in counted)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_runs_in_one_process_leave_no_model_behind(module, data, trainer, tmp_path):
    held, memory = [], []
    for i in range(10):
        folder = tmp_path / str(i)
        model, texts, callbacks = module(), data(**TEXTS), everything(folder, draw=False, lean=True)
        t = trainer(callbacks, max_epochs=1, logger=loggers(folder))
        t.fit(model, texts)
        held += [weakref.ref(each) for each in (model, model.language_model, texts, t, callbacks[1], callbacks[2])]
        del model, texts, callbacks, t
        gc.collect()
        memory.append(resident_kib())
        assert not [ref() for ref in held if ref() is not None]
    assert memory[-1] - memory[1] < 4 * 1024  # less than one model, which is 4.7 MiB


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_that_failed_leaves_no_model_behind(module, data, trainer, tmp_path):
    class Fail(Callback):
        def on_validation_end(self, trainer, pl_module):
            raise RuntimeError("failed")

    model = module()
    with pytest.raises(RuntimeError, match="failed"):
        trainer([*everything(tmp_path, draw=False, lean=True), Fail()], logger=loggers(tmp_path)).fit(
            model, data(**TEXTS)
        )
    ref = weakref.ref(model)
    del model
    gc.collect()
    assert ref() is None
