"""Command-line runs in processes that can be killed, and checks of everything that they leave."""

import contextlib
import faulthandler
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lit_mem.cli.main import main
from lit_mem.files import record
from lit_mem.models.base_models import load_base
from lit_mem.models.checkpoint import own_content

QUICKSTART = Path(__file__).parents[2] / "tests" / "quickstart_plain.yaml"
KEPT = ("best", "safe", "last")
SMALL = (
    "--data.train_size 12 --data.heldout_size 8 --data.batch_size 3 --data.max_length 32 --data.check false "
    "--trainer.max_epochs 3 --trainer.log_every_n_steps 1 --model.adapter.dropout 0.2 --model.adapter.targets [q,v] "
    "--model.lr_schedule linear"
).split()


@dataclass
class Process:
    """A forked process.

    Attributes:
        pid: its process id.
        said: its standard output and error.
    """

    pid: int
    said: Path

    def wait(self):
        """Its exit code, or minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def wait_for(self, path):
        """Wait until this file exists, which must be before the process ends."""
        while not path.exists():
            assert os.waitpid(self.pid, os.WNOHANG) == (0, 0), self.output
            time.sleep(0.02)

    def killed_after(self, seconds, number):
        """Like `wait`, after sending the signal."""
        time.sleep(seconds)
        os.kill(self.pid, number)
        return self.wait()

    @property
    def output(self):
        return self.said.read_text()


def fork(body, folder, env=None):
    """Run `body` in a forked process in a folder, with all modules imported already."""
    folder.mkdir(parents=True, exist_ok=True)
    said = folder.with_name(f"{folder.name}.out.{time.monotonic_ns()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on: another thread may hold a lock
        pid = os.fork()
    if pid:
        return Process(pid, said)
    code = 99
    try:
        faulthandler.disable()
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        os.environ.update(env or {})
        os.chdir(folder)
        code = body() or 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


FEW = ("Perplexity", "Movers", "MemorizationCheckpoint")


def configuration(folder, few):
    """The quickstart's configuration, with a threshold that no metric exceeds; `few`: only the fast callbacks."""
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load(QUICKSTART.read_text().replace("mia/reference_auroc > 0.85", "mia/reference_auroc > 2"))
    if few:
        callbacks = [{"class_path": f"lit_mem.callbacks.{name}"} for name in FEW]
        thresholds = config.pop("memorization")["stop"]
        callbacks.append(
            {"class_path": "lit_mem.callbacks.MemorizationEarlyStopping", "init_args": {"thresholds": thresholds}}
        )
        attack = {"attacks": {"reference": {"class_path": "lit_mem.attacks.ReferenceRatio"}}, "plots": False}
        callbacks.append({"class_path": "lit_mem.callbacks.MembershipInference", "init_args": attack})
        config["trainer"]["callbacks"] = callbacks
    (folder / "c.yaml").write_text(yaml.safe_dump(config))


def command(folder, *args, subcommand="fit", env=None, few=True):
    """Start `train.py` in a folder."""
    configuration(folder, few)

    def body():
        sys.argv = ["train.py"]
        main([subcommand, "--config", "c.yaml", *SMALL, *args])

    return fork(body, folder, {"LIT_MEM_CACHE": str(folder / "cache"), **(env or {})})


@pytest.fixture(scope="session")
def start():
    """Starts `train.py` as a forked process: `start(folder, *options)`."""
    return command


@pytest.fixture(scope="session")
def forked():
    """Runs a function in a forked process: `forked(body, folder)`."""
    return fork


@pytest.fixture(scope="session")
def run_to_end():
    """Runs `train.py` to its end in a forked process; returns its output."""

    def run(folder, *args, **kwargs):
        process = command(folder, *args, **kwargs)
        assert process.wait() == 0, process.output
        return process.output

    return run


# -- remaining files -------------------------------------------------------------------------------------------


def versions(folder):
    return sorted((folder / "logs" / "quickstart").glob("version_*"), key=lambda path: int(path.name.split("_")[1]))


def read_checkpoint(path):
    content = torch.load(path, weights_only=True)
    own_content(content)
    return content


def adapter_weights(folder):
    """Weights of an exported adapter, under the names in a checkpoint."""
    named = load_file(folder / "adapter_model.safetensors")
    return {f"_model.{name}".replace(".weight", ".default.weight"): value for name, value in named.items()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def check_checkpoints(folder, peft=False):
    """Files under a final name are complete, and mismatched pairs are marked; returns the steps by name."""
    steps = {}
    for which in KEPT:
        path, adapter = folder / f"{which}.ckpt", folder / f"{which}-adapter"
        content = read_checkpoint(path) if path.exists() else None
        if content is not None:
            assert adapter.exists(), f"{adapter} is missing"
            steps[which] = content["global_step"]
        if adapter.exists():
            weights, info = adapter_weights(adapter), json.loads((adapter / "lit_mem.json").read_text())
            assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "LORA"
            if content is not None:
                assert same(weights, content["state_dict"]) == (info["global_step"] == content["global_step"]), adapter
            if peft:
                PeftModel.from_pretrained(load_base("asset:tiny_llama"), str(adapter))
    return steps


def check_events(path):
    """Complete records up to the last one are readable, whatever follows."""
    return len(list(EventFileLoader(str(path)).Load()))


def check_store(cache):
    """Every file can be opened; its content is tested if its texts are available for decryption."""
    for path in cache.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.metadata()["sha256"]
            assert [len(file.get_tensor(name)) > 0 for name in file.keys()] == [True]


def check_run(folder, peft=False):
    """Check everything that runs have left in a folder.

    Args:
        folder: the runs' working directory.
        peft: load the adapters too.
    """
    for version in versions(folder):
        check_checkpoints(version / "checkpoints", peft)
        for path in version.glob(record.FILE):
            record.read(path)
        for path in version.glob("events.out.*"):
            check_events(path)
        for path in version.glob("*.yaml"):
            content = yaml.safe_load(path.read_text())
            assert path.name != "config.yaml" or {"seed_everything", "trainer", "model", "data"} <= content.keys(), path
    check_store(folder / "cache")


def recorded(folder):
    """(step, name) -> value of every metric in the records of the runs in a folder, timings left out."""
    metrics = {}
    for version in versions(folder):
        for line in record.read(version / record.FILE)[0]:
            for name, value in line.metrics.items():
                if not name.startswith("time/"):
                    same_value = pytest.approx(value, rel=0, abs=0, nan_ok=True)
                    assert metrics.setdefault((line.step, name), value) == same_value, (line.step, name)
    assert metrics
    return metrics


def final_state(folder):
    """The last checkpoint of the last run, except for paths."""
    lasts = [v / "checkpoints" / "last.ckpt" for v in versions(folder) if (v / "checkpoints" / "last.ckpt").exists()]
    return read_checkpoint(max(lasts, key=lambda path: path.stat().st_mtime_ns))


def plain(value):
    """A checkpoint's content with tensors as lists, for comparison."""
    if isinstance(value, dict):
        return {
            key: plain(inner) for key, inner in value.items() if "path" not in str(key) and key != "combined_loader"
        }
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.tolist() if isinstance(value, torch.Tensor) else value


def assert_same_run(folder, uninterrupted):
    """The runs in a folder, taken together, are bit-identical to an uninterrupted one."""
    mine, theirs = final_state(folder), final_state(uninterrupted)
    # Digests are keyed by a salt per run.
    known = [
        {name: digests.shape for name, digests in state["lit_mem"].pop("members").items()} for state in (mine, theirs)
    ]
    assert known[0] == known[1]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "lit_mem"):
        assert plain(mine[part]) == plain(theirs[part]), part
    assert plain(mine["callbacks"]) == plain(theirs["callbacks"])
    assert recorded(folder) == recorded(uninterrupted)


@pytest.fixture(scope="session")
def left():
    """Functions that check the files left by runs, by name."""

    class Left:
        run = staticmethod(check_run)
        checkpoints = staticmethod(check_checkpoints)
        events = staticmethod(check_events)
        recorded = staticmethod(recorded)
        final_state = staticmethod(final_state)
        same_run = staticmethod(assert_same_run)
        versions = staticmethod(versions)
        weights = staticmethod(lambda path: read_checkpoint(path)["state_dict"])
        adapter = staticmethod(adapter_weights)
        same = staticmethod(same)

    return Left


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, run_to_end):
    """Makes an uninterrupted run once: `uninterrupted(few)`; its folder, and its duration in seconds."""
    made = {}

    def make(few=True):
        if few not in made:
            folder, begun = tmp_path_factory.mktemp("uninterrupted") / "run", time.monotonic()
            run_to_end(folder, few=few)
            made[few] = folder, time.monotonic() - begun
        return made[few]

    return make


@pytest.fixture(scope="session")
def random_kills():
    """Kills a run at random moments and resumes it, then lets it finish; returns the number of kills."""

    def kill(folder, seed, seconds, kills, few=True, numbers=(signal.SIGKILL, signal.SIGTERM, signal.SIGINT)):
        chance, done = random.Random(seed), 0

        def begin():
            saved = folder.glob("logs/*/*/checkpoints/last.ckpt")  # complete ones only
            resumed = ["--ckpt_path", "last"] if any(saved) else []
            return command(folder, *resumed, few=few)

        for _ in range(kills):
            process, number = begin(), chance.choice(numbers)
            code = process.killed_after(chance.uniform(0.05, 0.9) * seconds, number)
            check_run(folder, peft=True)
            assert "Traceback" not in process.output, process.output
            if code == 0:
                return done
            done += 1
            assert code in (-number, 128 + number), process.output
            assert process.output.count("Stopped by ") <= 1, process.output
        process = begin()
        assert process.wait() == 0, process.output
        return done

    return kill
