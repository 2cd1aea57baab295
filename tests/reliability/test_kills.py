"""A run killed at any moment leaves complete files, and resumes as if it had not been killed."""

import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_mem.callbacks import MemorizationCheckpoint, Perplexity
from lit_mem.files import atomic, record
from lit_mem.lightning.signals import ended_by_sigterm, stop_code
from lit_mem.report.history import history_of
from lit_mem.scoring.reference_store import ReferenceStore

log = logging.getLogger(__name__)

# LIT_MEM_KILL_SECONDS=1000 pytest tests/reliability/test_kills.py -k many --timeout 2000 --log-cli-level INFO
SEED, SECONDS = (
    int(os.environ.get(f"LIT_MEM_KILL_{name}", value)) for name, value in (("SEED", 1000), ("SECONDS", 15))
)

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


# -- every step of a save, one by one ------------------------------------------------------------------------------


class Deaths:
    """Kills the process at the n-th file-system operation that could be left half done."""

    def __init__(self, n, torn):
        self.left, self.torn = n, torn

    def arm(self):
        sys.addaudithook(self._hook)
        fsync, exchange = os.fsync, atomic._exchange

        def dying_fsync(handle):
            if self.torn:  # as if the disk had stored half of the data
                name = Path(os.readlink(f"/proc/self/fd/{handle}"))
                size = name.stat().st_size
                if name.is_file() and self.count():
                    os.truncate(name, size // 2)
                    die()
                return
            self.step()
            fsync(handle)

        def dying_exchange(one, other):
            self.step()
            done = exchange(one, other)
            self.step()
            return done

        os.fsync, atomic._exchange = dying_fsync, dying_exchange

    def _hook(self, event, args):
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.copyfile", "shutil.rmtree"):
            self.step()

    def count(self):
        self.left -= 1
        return self.left < 0

    def step(self):
        if not self.torn and self.count():
            die()


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(900)


class SaveAndDie(Callback):
    """In a validation, saves in forked processes that die at successive moments, each in its own folder.

    Attributes:
        folders: folders left by each, by number of the moment.
    """

    def __init__(self, keep, forked, into, torn, exchange, every, epoch):
        self.keep, self.forked, self.into, self.torn, self.exchange = keep, forked, into, torn, exchange
        self.every, self.epoch = every, epoch
        self.folders = []

    def on_validation_end(self, trainer, pl_module):
        if trainer.sanity_checking or trainer.current_epoch != self.epoch:
            return
        code, n = -signal.SIGKILL, 0
        while code == -signal.SIGKILL:
            folder = self.into / str(n)
            process = self.forked(lambda n=n, folder=folder: self._save(trainer, pl_module, n, folder), folder)
            code = process.wait()
            assert code in (-signal.SIGKILL, 0), process.output
            if code:
                self.folders.append(folder)
            n += self.every

    def _save(self, trainer, pl_module, n, folder):
        before = Path(self.keep.dirpath)
        if before.exists():
            shutil.copytree(before, folder, dirs_exist_ok=True)
        self.keep.dirpath = str(folder)
        if not self.exchange:
            atomic._exchange = lambda one, other: False
        Deaths(n, self.torn).arm()
        self.keep.on_validation_end(trainer, pl_module)


class Rises(Perplexity):
    """Has a metric by which each epoch is the best so far."""

    def names(self):
        return [*super().names(), "rises"]

    def compute(self, run):
        found = super().compute(run)
        return replace(found, metrics=found.metrics | {"rises": run.epoch - 1.0})


def kept(folder):
    return MemorizationCheckpoint(dirpath=str(folder), monitor="rises", mode="max")


@pytest.fixture(scope="module")
def saves_that_died(module, data, trainer, forked, tmp_path_factory):
    """Makes once: `saves_that_died(exchange, torn, every, epoch)`; the folders, and that of the surviving run."""
    made = {}

    def make(exchange=True, torn=False, every=1, epoch=1):
        key = exchange, torn, every, epoch
        if key not in made:
            folder = tmp_path_factory.mktemp("saves")
            keep = kept(folder / "whole")
            deaths = SaveAndDie(keep, forked, folder / "died", torn, exchange, every, epoch)
            torch.manual_seed(1)
            run = trainer([Rises(), deaths, keep], max_epochs=3, num_sanity_val_steps=0)
            run.fit(module(), data(train_size=6, batch_size=3, heldout_size=4, max_length=24))
            made[key] = deaths.folders, folder / "whole"
        return made[key]

    return make


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("torn", "exchange", "every"),
    [
        pytest.param(False, True, 8, id="some"),
        pytest.param(True, True, 8, id="torn, some", marks=SLOW),
        pytest.param(False, True, 1, id="all", marks=SLOW),
        pytest.param(False, False, 1, id="no exchange, all", marks=SLOW),
        pytest.param(True, True, 1, id="torn, all", marks=SLOW),
    ],
)
def test_a_save_that_is_killed_anywhere_leaves_whole_pairs(saves_that_died, left, torn, exchange, every):
    """Beside the old checkpoints, killed at each moment of saving new ones."""
    folders, _ = saves_that_died(exchange, torn, every)
    assert len(folders) >= (15 if torn else 50) // every
    old, new = 2, 4
    seen, aside = set(), 0
    for folder in folders:
        for adapter in folder.glob(".*-adapter.old"):  # between two steps; the next start restores the name
            named = adapter.with_name(adapter.name.removeprefix(".").removesuffix(".old"))
            if not named.exists():
                assert not exchange
                adapter.rename(named)
                aside += 1
        steps = left.checkpoints(folder)
        # The last checkpoint's references to the others are valid: they are never older.
        assert steps["best"] >= steps["last"]
        assert steps["safe"] >= steps["last"]
        seen.add(tuple(steps[which] for which in ("best", "safe", "last")))
    assert seen <= {(old, old, old), (new, old, old), (new, new, old), (new, new, new)}
    if every == 1:
        assert len(seen) == (1 if torn else 4)
        assert aside == (0 if exchange else 3)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_first_save_of_all_leaves_whole_pairs_or_nothing(saves_that_died, left):
    folders, _ = saves_that_died(epoch=0)
    assert len(folders) > 30
    for folder in folders:
        assert set(left.checkpoints(folder).values()) <= {2}


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("exchange", "every", "resumed"),
    [
        pytest.param(True, 8, slice(2, None, 4), id="some"),
        pytest.param(True, 1, slice(0, None, 5), id="many", marks=SLOW),
        pytest.param(False, 1, slice(0, None, 5), id="no exchange, many", marks=SLOW),
    ],
)
def test_a_run_goes_on_from_a_save_that_was_killed_and_clears_up(
    module, data, trainer, saves_that_died, left, tmp_path, exchange, every, resumed
):
    folders, whole = saves_that_died(exchange, every=every)
    expected = {which: left.weights(whole / f"{which}.ckpt") for which in ("best", "safe", "last")}
    for died in folders[resumed]:
        folder = tmp_path / died.name
        shutil.copytree(died, folder)
        torch.manual_seed(7)
        trainer([Rises(), kept(folder)], max_epochs=3).fit(
            module(),
            data(train_size=6, batch_size=3, heldout_size=4, max_length=24),
            ckpt_path=str(folder / "last.ckpt"),
            weights_only=True,
        )
        for which, weights in expected.items():
            assert left.same(left.weights(folder / f"{which}.ckpt"), weights)
            assert left.same(left.adapter(folder / f"{which}-adapter"), weights)
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())


# -- the whole program, at random moments --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_killed_at_random_is_in_the_end_the_uninterrupted_one(uninterrupted, random_kills, left, tmp_path):
    expected, seconds = uninterrupted()
    for times in (1, 2, 4, 8):  # the machine may be faster now than in the timed run
        if random_kills(tmp_path / f"run{times}", 1, seconds / times, 2):
            break
    else:
        pytest.fail("no run was killed before it ended")
    left.same_run(tmp_path / f"run{times}", expected)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("few", [True, False], ids=["few callbacks", "all callbacks"])
def test_many_runs_killed_at_random_are_in_the_end_the_uninterrupted_one(
    uninterrupted, random_kills, left, tmp_path, few
):
    expected, seconds = uninterrupted(few)
    begun, kills, run = time.monotonic(), 0, 0
    while time.monotonic() - begun < SECONDS:
        kills += random_kills(tmp_path / str(run), SEED + run, seconds, 5, few)
        left.same_run(tmp_path / str(run), expected)
        run += 1
    assert kills >= 1
    log.info("%d kills of %d runs", kills, run)  # seen with --log-cli-level INFO


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGTERM, "SIGTERM"), pytest.param(signal.SIGINT, "Ctrl-C", marks=SLOW)],
    ids=["sigterm", "ctrl-c"],
)
def test_a_signal_ends_a_run_with_one_line_that_says_how_to_go_on(start, left, tmp_path, number, name):
    process = start(tmp_path / "run", "--trainer.max_epochs", "500")
    last = tmp_path / "run" / "logs" / "quickstart" / "version_0" / "checkpoints" / "last.ckpt"
    process.wait_for(last)
    code = process.killed_after(0.3, number)
    assert code == 128 + number, process.output
    lines = [line for line in process.output.splitlines() if "Stopped" in line]
    relative = "logs/quickstart/version_0/checkpoints/last.ckpt"
    assert lines == [f"Stopped by {name}; to resume, run the same command with --ckpt_path {relative}."]
    assert process.output.splitlines()[-1] == lines[0]
    for noise in ("Traceback", "Detected KeyboardInterrupt", "Received SIGTERM"):
        assert noise not in process.output
    left.run(tmp_path / "run")
    # No logs are lost: TensorBoard has the same steps as the CSV file.
    assert left.events(next(last.parents[1].glob("events.out.*"))) > 20


@pytest.mark.slow
def test_a_signal_before_the_first_checkpoint_says_that_there_is_none(start, tmp_path):
    process = start(tmp_path / "run", "--trainer.max_epochs", "500", "--trainer.val_check_interval", "null",
                    "--trainer.check_val_every_n_epoch", "400")  # fmt: skip
    config = tmp_path / "run" / "logs" / "quickstart" / "version_0" / "config.yaml"
    process.wait_for(config)
    assert process.killed_after(0.3, signal.SIGTERM) == 143, process.output
    assert process.output.splitlines()[-1] == "Stopped by SIGTERM before the first checkpoint."


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (SystemExit(143), 143),
        (SIGTERMException(), 143),
        (SystemExit(1), None),
        (RuntimeError("DataLoader worker is killed by signal: Terminated."), None),
    ],
)
def test_the_cause_of_an_ended_run_is_read_from_the_chain_of_errors(error, code):
    def cleaned_up():
        try:
            raise error
        except BaseException:
            raise RuntimeError("while cleaning up")  # noqa: B904

    with pytest.raises(RuntimeError, match="cleaning up") as last:
        cleaned_up()
    assert stop_code(last.value) == code


def test_a_program_with_its_own_handler_keeps_it():
    def mine(number, frame):
        raise AssertionError

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with ended_by_sigterm():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_nothing_is_changed():
    seen = []

    def body():
        with ended_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


# -- the record, metrics.csv and the reference store ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True])
def test_lines_of_the_record_outlive_a_kill_anywhere(forked, tmp_path, torn):
    def line(step):
        return record.Line("fit", step, step, step, True, 60, 60, {"val/loss": 1 / (step + 1)})

    def body(n):
        record.append(Path(record.FILE), line(0))
        Deaths(n, torn).arm()
        for step in range(1, 4):
            record.append(Path(record.FILE), line(step))

    n, code, seen = 0, -signal.SIGKILL, set()
    while code == -signal.SIGKILL:
        path = tmp_path / str(n) / record.FILE
        process = forked(lambda n=n: body(n), path.parent)
        code = process.wait()
        assert code in (0, -signal.SIGKILL), process.output
        found, _ = record.read(path)
        assert found == [line(step) for step in range(len(found))]
        seen.add(len(found))
        record.append(path, line(9))
        assert record.read(path) == ([*found, line(9)], [])
        n += 1
    assert n == (4 if torn else 10)  # at each write; before each of two openings per line, and each write
    assert seen == ({1, 2, 4} if torn else {1, 2, 3, 4})  # torn: half of the file is lost, possibly one more line


def test_wherever_metrics_csv_is_cut_off_the_record_gives_the_validations(tmp_path):
    """Lightning's logger appends rows, and rewrites the file when a metric is new."""
    logger = CSVLogger(str(tmp_path), "", "")
    for epoch in range(3):
        logger.log_metrics({"train/loss": 1.25 / (epoch + 1), "epoch": epoch}, 10 * epoch + 5)
        metrics = {"val/loss": 1 / (epoch + 3), "mia/reference_auroc": 2 / 3}
        logger.log_metrics(metrics | {"epoch": epoch}, 10 * epoch + 9)
        record.append(
            tmp_path / record.FILE,
            record.Line("fit", epoch + 1, 10 * epoch + 10, 10 * epoch + 9, True, 60, 60, metrics),
        )
        logger.save()
    lines, path = record.read(tmp_path / record.FILE)[0], tmp_path / "metrics.csv"
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        found = [v for v in history_of(tmp_path).validations if v.epoch > 0]
        assert [v.metrics["val/loss"] for v in found] == [line.metrics["val/loss"] for line in lines], length


def test_a_damaged_file_of_reference_scores_is_never_taken_for_a_good_one(tmp_path):
    logprob, hit = torch.randn(3, 20), torch.rand(3, 20) > 0.5
    store = ReferenceStore(tmp_path, {})
    store.save(b"key", logprob, hit)
    (path,) = store.folder.iterdir()
    whole, chance = path.read_bytes(), random.Random(0)
    damaged = [whole[:n] + fill * (len(whole) - n) for n in range(0, len(whole), 7) for fill in (b"", b"\0")]
    for _ in range(300):
        at = chance.randrange(len(whole))
        damaged.append(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        found = store.load(b"key", (3, 20))
        assert found is None or (torch.equal(found[0], logprob) and torch.equal(found[1], hit))
    path.write_bytes(whole)
    assert store.load(b"key", (3, 20)) is not None


def test_unfinished_reference_scores_of_killed_processes_are_removed(tmp_path):
    store = ReferenceStore(tmp_path, {})
    store.folder.mkdir()
    old, young = store.folder / ".a.part", store.folder / ".b.part"
    for path, age in ((old, 7200), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    store.save(b"key", torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool))
    assert not old.exists()
    assert young.exists()  # another process may be writing it
