"""Fixtures that many tests share: the bundled model, small batches, trainers, a run of the command line."""

import io
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from lit_mem import assets
from lit_mem.adapters import LoRA
from lit_mem.audit.loop import Audit
from lit_mem.audit.measure import Pass
from lit_mem.cli.main import main
from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.sources import case_reports
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.extraction.continuations import no_bar
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer

TINY = "asset:tiny_llama"
QUICKSTART = Path(__file__).parents[1] / "tests" / "quickstart_plain.yaml"


@pytest.fixture(autouse=True)
def no_seed_left():
    """Lightning keeps a seed in the environment, from which processes that a later test starts would begin."""
    _forget_seed()
    yield
    _forget_seed()


def _forget_seed():
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def own_signals():
    """A test starts with the system's handler of SIGTERM, even if an earlier one replaced it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def bundled_corpus_read_once():
    """The bundled corpus is the same for every test, and its tables cannot be changed: it is read and checked once."""
    read, kept, bundled = case_reports._split, {}, assets.path("case_reports")

    def once(file):
        if file.parent != bundled:
            return read(file)
        if file not in kept:
            kept[file] = read(file)
        return kept[file]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case_reports, "_split", once)
        yield


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(TINY)


@pytest.fixture
def base():
    """The bundled base model, fresh for every test, in eval mode."""
    return load_base(TINY).eval()


@pytest.fixture(scope="session")
def texts():
    lines = (assets.path("case_reports") / "train.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines[:24]]


@pytest.fixture
def examples(tokenizer, texts):
    """Encoded texts of various lengths; even ids are members."""
    encoded = []
    for i, text in enumerate(texts):
        ids = torch.tensor(tokenizer(text)["input_ids"][: 12 + 3 * i])
        labels = ids.clone()
        labels[0] = -100
        encoded.append(Encoded(ids, labels, i, i % 2 == 0))
    return encoded


@pytest.fixture
def batch(examples):
    return collate(examples[:8])


@pytest.fixture(autouse=True)
def restored_environment(tmp_path_factory):
    """Each test starts from the same random state and an empty cache, and leaves the environment as it was."""
    before = dict(os.environ)
    log = logging.getLogger("lit_mem")  # the command line, run in this process, gives it a handler of its own
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)
    os.environ["LIT_MEM_CACHE"] = str(tmp_path_factory.mktemp("cache", numbered=True) / "lit_mem")
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    os.environ.clear()
    os.environ.update(before)
    if torch.distributed.is_initialized():  # a trainer with a distributed strategy leaves its group behind
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def module():
    """Makes modules around the bundled base: `module(rank=4, reference=...)`."""

    def make(rank=4, dropout=0.1, targets=("v", "o"), lr=5e-3, **kwargs):
        kwargs.setdefault("adapter", LoRA(rank=rank, dropout=dropout, targets=list(targets)))
        return CausalLM(model_id=TINY, optimizer=lambda p: torch.optim.AdamW(p, lr=lr), **kwargs)

    return make


@pytest.fixture(scope="session")
def data():
    """Makes small data modules over the bundled corpus."""

    def make(**kwargs):
        sizes = {"train_size": 24, "heldout_size": 20, "batch_size": 6, "max_length": 64, "check": False}
        options = sizes | kwargs
        if options["train_size"] and options["heldout_size"]:  # as many members as held-out texts are scored
            options.setdefault("members_size", min(options["train_size"], options["heldout_size"]))
        return TextDataModule(CaseReports(), **options)

    return make


@pytest.fixture(scope="session")
def trainer(tmp_path_factory):
    """Makes quiet CPU trainers that write to a temporary folder only."""

    def make(callbacks=(), **kwargs):
        options = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": False,
            "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": -1,
            "default_root_dir": tmp_path_factory.mktemp("trainer"),
            "log_every_n_steps": 1,
        }
        return pl.Trainer(callbacks=list(callbacks), **(options | kwargs))

    return make


class PlainSubject:
    """What measures see without a model: scores are generated."""

    name, ends, tokenizer, language_model = "Nothing", frozenset(), None, None
    lacks = staticmethod(lambda *names: [])
    tuned_is_reference = staticmethod(lambda: False)
    privacy_claim = groups = staticmethod(lambda: None)
    forward_context = lockstep = staticmethod(nullcontext)
    progress = staticmethod(no_bar)
    every_text = staticmethod(tuple)
    all_texts = staticmethod(lambda member: None)


@pytest.fixture(scope="session")
def audited():
    """Runs measures over generated scores: `audited(measure, (scores, batch), …, stage="fit")`; a `PassResult`."""

    def run(measures, *pairs, subject=PlainSubject, **options):
        audit = Audit(measures if isinstance(measures, list) else [measures])
        audit.begin(subject)
        for scores, batch in pairs:
            audit.observe(scores, batch)
        return audit.finish(Pass(subject, **options))

    return run


@pytest.fixture(scope="session")
def trained():
    """The trained weights of a module by name, copied."""

    def weights(module):
        return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}

    return weights


# -- one run of the command line -----------------------------------------------------------------------------


@contextmanager
def set_aside(folder):
    """Home, caches and temporary files are in separate folders, so that all writes are seen."""
    with pytest.MonkeyPatch.context() as patch:
        for name, place in (("HOME", "home"), ("XDG_CACHE_HOME", "home/cache"), ("TMPDIR", "temporary")):
            (folder / place).mkdir(parents=True, exist_ok=True)
            patch.setenv(name, str(folder / place))
        patch.setenv("LIT_MEM_CACHE", str(folder / "cache"))
        patch.setattr(tempfile, "tempdir", None)  # so that TMPDIR is read again
        patch.setattr(sys, "argv", ["train.py"])
        (folder / "work").mkdir()
        patch.chdir(folder / "work")
        log = logging.getLogger("lit_mem")
        before = list(log.handlers), log.propagate, log.level
        log.handlers = []
        yield
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])


def hub_files():
    """What the hub's libraries keep, wherever that was set when they were imported."""
    home = Path(huggingface_hub.constants.HF_HOME)
    return {path for path in home.rglob("*") if path.is_file()} if home.is_dir() else set()


# The probe of the members is all of them, so that whatever is written of an example may be of any.
QUICKSTART_SIZES = "--data.train_size 16 --data.heldout_size 16 --data.batch_size 4 --trainer.max_epochs 4".split()
QUICKSTART_SIZES += "--trainer.log_every_n_steps 1".split()


@pytest.fixture(scope="session")
def quickstart_run(tmp_path_factory):
    """One run of `train.py fit` with the quickstart's configuration, small, that a threshold ends after two epochs.

    Tests only read it. It has: folder (everything that it wrote; texts in `asked_for` alone), work (where it was
    started, below folder), version (its log folder), config (what it was given), sizes, out, err and drawn (words in
    plots).
    """
    folder = tmp_path_factory.mktemp("quickstart")
    drawn, before = [], hub_files()
    add_figure = SummaryWriter.add_figure

    def spy(self, tag, figure, *args, **kwargs):
        drawn.extend(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
        return add_figure(self, tag, figure, *args, **kwargs)

    # With so few texts, subgroups are small, and one epoch exceeds the quickstart's own threshold.
    options = "{min_size: 3, attacks: [reference], measures: [ngram_rate, exact_memorization, span_rate]}"
    slices = f"{{class_path: lit_mem.audit.measures.Slices, init_args: {options}}}"
    config = QUICKSTART.read_text().replace("mia/reference_auroc > 0.85", "mia/reference_auroc > 0.95")
    config = config.replace("memorization:\n", f"memorization:\n  measures: [{slices}]\n")
    table = {"folder": str(folder / "asked_for"), "text": True}
    table = json.dumps({"class_path": "lit_mem.callbacks.PerExampleTable", "init_args": table})
    out, err = io.StringIO(), io.StringIO()
    (folder / "config.yaml").write_text(config)
    with set_aside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(SummaryWriter, "add_figure", spy)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        given = ["--config", str(folder / "config.yaml"), *QUICKSTART_SIZES]
        main(["fit", *given, f"--trainer.callbacks+={table}"])
    (folder / "config.yaml").unlink()
    assert hub_files() == before
    return SimpleNamespace(
        folder=folder, work=folder / "work", version=folder / "work" / "logs" / "quickstart" / "version_0",
        config=config, sizes=QUICKSTART_SIZES, out=out.getvalue(), err=err.getvalue(), drawn=drawn,
    )  # fmt: skip
