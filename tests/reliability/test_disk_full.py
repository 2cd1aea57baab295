"""A full disk: one line reports it, earlier files are intact, and nothing is half written."""

import contextlib
import errno
import logging
import os
import re
import resource
import shutil
import subprocess
import threading
from dataclasses import replace

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors import SafetensorError

from lit_mem.attacks import ReferenceRatio
from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, Perplexity
from lit_mem.files import atomic
from lit_mem.lightning.signals import failed_write, writer_errors_silenced
from lit_mem.report.history import history_of

pytestmark = [pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")]

FULL = "No space left on device"


@pytest.fixture
def disk(tmp_path):
    """Makes small file systems: `disk(KiB)`; returns their folder."""
    mounted = []

    def mount(kib):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("needs the right to mount a file system")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("needs mount")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, but=0):
    """Fill the disk except for some KiB."""
    with contextlib.suppress(OSError), open(folder / "filler", "ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(folder / "filler", max(0, (folder / "filler").stat().st_size - 1024 * but))


def assert_one_line(process, folder):
    """Exit code 2, and after the table's rows only one line, which names a file of the run."""
    said = process.output
    assert "Traceback" not in said, said
    assert "Exception in thread" not in said, said
    (line,) = [line for line in said.splitlines() if FULL in line]
    assert said.splitlines()[-1] == line
    assert re.fullmatch(rf"error: logs/quickstart/version_0\S*: {FULL}", line), line


SLOW = pytest.mark.slow


@pytest.mark.parametrize("but", [0, *(pytest.param(kib, marks=SLOW) for kib in (4, 8, 16, 32, 64, 128, 256, 512))])
def test_a_run_whose_disk_fills_up_ends_with_one_line_and_whole_files(start, left, disk, tmp_path, but):
    folder = disk(16 * 1024)
    process = start(folder, "--trainer.max_epochs", "500", env={"LIT_MEM_CACHE": str(tmp_path / "cache")})
    last = folder / "logs" / "quickstart" / "version_0" / "checkpoints" / "last.ckpt"
    process.wait_for(last)
    fill(folder, but)
    assert process.wait() == 2, process.output
    assert_one_line(process, folder)
    left.run(folder)
    assert set(left.checkpoints(last.parent)) == {"best", "safe", "last"}
    assert {path.name for path in last.parent.iterdir()} == {
        f"{which}{form}" for which in ("best", "safe", "last") for form in (".ckpt", "-adapter")
    }


@pytest.mark.slow
@pytest.mark.parametrize("but", [0, 4, 8])
def test_a_full_disk_at_the_start_leaves_no_half_configuration(start, disk, tmp_path, but):
    folder = disk(64)
    (folder / "logs" / "quickstart" / "version_0").mkdir(parents=True)
    fill(folder, but + 4)  # the command's own copy of the configuration takes 4
    process = start(folder, env={"LIT_MEM_CACHE": str(tmp_path / "cache")})
    assert process.wait() == 2, process.output
    assert "Traceback" not in process.output
    assert FULL in process.output.splitlines()[-1]
    for path in folder.rglob("config.yaml"):  # none, or whole
        assert {"seed_everything", "trainer", "model", "data"} <= yaml.safe_load(path.read_text()).keys()


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_on_disk_costs_none_of_those_before(module, data, trainer, left, disk, tmp_path):
    """The same fit on disks of growing size: at each size it completes, or reports what it could not write."""
    before, sizes = None, {"train_size": 12, "batch_size": 6, "heldout_size": 4, "max_length": 24}
    for kib in (8, 512, 1024, 2048, 8192):
        folder = disk(kib) / "checkpoints"
        torch.manual_seed(1)
        fit = trainer([Perplexity(), MemorizationCheckpoint(dirpath=str(folder))], num_sanity_val_steps=0)
        try:
            fit.fit(module(), data(**sizes))
            error = None
        except OSError as caught:
            error = caught
            assert error.errno == errno.ENOSPC
            assert error.filename == str(folder / "last.ckpt")
        if folder.exists():
            steps = left.checkpoints(folder)
            assert set(steps) in (set(), {"best", "safe", "last"})
            assert ".saving" not in os.listdir(folder)
            assert (error is None) <= (steps.get("last") == 4)
        before = error if before is None else before
    assert before is not None
    assert error is None


@SLOW
@pytest.mark.parametrize(
    "kind",
    [TensorBoardLogger, CSVLogger],
)
def test_a_logger_on_a_full_disk_ends_the_run_with_a_disk_error(module, data, trainer, disk, kind):
    folder = disk(64)
    logger = kind(str(folder), "run", 0)

    class Fill(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                fill(folder)

    class Many(Perplexity):
        """More data than is left in a block."""

        def compute(self, run):
            found = super().compute(run)
            return replace(found, metrics=found.metrics | {f"many/{n}": n / 3 for n in range(200)})

    heard = []
    before, threading.excepthook = threading.excepthook, heard.append
    run = trainer([Fill(), Many()], logger=logger, max_epochs=3)
    try:
        with writer_errors_silenced(), pytest.raises(Exception) as caught:  # noqa: PT011  (loggers wrap it)
            run.fit(module(), data())
    finally:
        threading.excepthook = before
    assert not heard
    failed = failed_write(caught.value, "the log folder")
    assert failed is not None
    assert failed.errno == errno.ENOSPC


def test_what_a_full_disk_leaves_of_metrics_csv_can_be_read(disk):
    folder = disk(64)
    logger = CSVLogger(str(folder), "", "", flush_logs_every_n_steps=1)
    logger.log_metrics({"val/loss": 0.123456789}, 0)
    fill(folder)

    def log_many():
        for step in range(1, 2000):
            logger.log_metrics({"val/loss": step / 7}, step)

    with pytest.raises(OSError, match=FULL):
        log_many()
    found = history_of(folder)
    assert found.validations[0].metrics == {"val/loss": 0.123456789}
    assert len(found.validations) > 50
    assert all(each.metrics["val/loss"] == each.step / 7 for each in found.validations[1:])
    (folder / "filler").unlink()
    logger.finalize("failed")  # there is room again
    assert len(history_of(folder).validations) >= len(found.validations)


@pytest.mark.slow
def test_a_cache_on_a_full_disk_is_skipped(module, data, trainer, disk, monkeypatch, caplog):
    logging.getLogger("lit_mem").propagate = True
    folder = disk(12)
    monkeypatch.setenv("LIT_MEM_CACHE", str(folder))
    attacks = {"reference": ReferenceRatio()}
    texts = data(train_size=20, scoring_tokens=256)
    trainer([MembershipInference(attacks, plots=False)], max_epochs=1).fit(module(), texts)
    assert caplog.text.count("Reference scores are not stored for later runs") == 1
    assert FULL in caplog.text
    assert not list(folder.rglob("*.part"))
    kept = list(folder.rglob("*.safetensors"))
    again = module()
    trainer([MembershipInference(attacks, plots=False)]).validate(again, texts, verbose=False)
    assert again.reference_cache.store.loaded == len(kept) > 0


def test_a_file_larger_than_the_system_allows_is_reported_like_a_full_disk(forked, tmp_path):
    """For example with a shell limit, or on a file system with a maximum file size of 4 GiB."""
    path = tmp_path / "run" / "x.txt"

    def body():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(OSError, match="File too large") as caught:
            atomic.write_text(path, "x" * 10000)
        assert caught.value.filename == str(path)
        assert failed_write(caught.value, "") is not None
        return 7

    (tmp_path / "run").mkdir()
    path.write_text("before")
    process = forked(body, tmp_path / "run")
    assert process.wait() == 7, process.output
    assert path.read_text() == "before"
    assert os.listdir(path.parent) == ["x.txt"]


# -- the same without a disk --------------------------------------------------------------------------------------


def test_what_safetensors_says_of_a_full_disk_is_understood(tmp_path):
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match=FULL) as caught, atomic.naming(tmp_path / "x"):
        raise SafetensorError(message)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    with pytest.raises(SafetensorError), atomic.naming(tmp_path / "x"):
        raise SafetensorError("Error while serializing: something else")


def test_the_error_of_the_disk_is_found_wherever_in_the_chain_it_is():
    def wrapped(error):
        try:
            try:
                raise error
            except OSError as inner:
                raise ValueError("you tried to log 0.5 which is currently not supported") from inner
        except ValueError as outer:
            return outer

    found = failed_write(wrapped(OSError(errno.ENOSPC, FULL)), "logs/a")
    assert (found.errno, found.filename, found.strerror) == (errno.ENOSPC, "logs/a", FULL)
    assert failed_write(wrapped(OSError(errno.EDQUOT, "x", "logs/b")), "logs/a").filename == "logs/b"
    assert failed_write(wrapped(OSError(errno.ENOENT, "x", "data.txt")), "logs/a") is None
    assert failed_write(ValueError(), "logs/a") is None
    error, other = wrapped(OSError(errno.ENOENT, "x")), ValueError()
    error.__cause__.__context__, other.__context__ = other, error  # as in TensorBoard, which raises the same one again
    assert failed_write(error, "logs/a") is None


def test_other_threads_are_heard_as_ever():
    heard = []
    before, threading.excepthook = threading.excepthook, lambda args: heard.append(args.exc_value)
    error = OSError(errno.ENOSPC, FULL)

    def fail():
        raise error

    try:
        with writer_errors_silenced():
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert heard == [error]
