"""A local sweep opens nothing to other users and leaves no files, however it ends."""

import ipaddress
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest

from lit_mem.errors import ConfigError
from lit_mem.lightning.signals import ended_by_sigterm
from lit_mem.sweep import ray_session

ROOT = Path(__file__).parents[2]
SMALL = {
    "trainer.log_every_n_steps": 1,
    "data.train_size": 12,
    "data.heldout_size": 12,
    "data.max_length": 32,
    "data.check": False,
}
AXES = {"rank": {"option": "model.adapter.init_args.rank", "values": [2]}}


@pytest.fixture
def short():
    """A temporary folder with a path short enough for Unix sockets in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def sweep(tmp_path, short):
    """Starts a sweep in its own process, with the default umask; ends it if the test does not."""
    begun = []

    def start(epochs):
        (tmp_path / "home").mkdir()
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path / "home"), "TMPDIR": str(short)}
        line = [
            sys.executable, "train.py", "sweep", "--config=configs/sweeps/rank.yaml", f"--out={tmp_path / 'out'}",
            f"--set={json.dumps(SMALL | {'trainer.max_epochs': epochs})}", f"--axes={json.dumps(AXES)}", "--seeds=[0]",
        ]  # fmt: skip
        with (tmp_path / "said.txt").open("w") as said:
            process = subprocess.Popen(line, cwd=ROOT, env=env, stdout=said, stderr=said, umask=0)
        begun.append(process)
        return process

    yield start
    for process in begun:
        for each in family(process.pid):
            each.kill()
        process.kill()
        process.wait()


def family(pid):
    """All descendant processes of a process."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listening(pid):
    """(name, address) of each socket on which a process or its children listen."""
    for each in [psutil.Process(pid), *family(pid)]:
        try:
            for socket in each.net_connections("inet"):
                if socket.status == psutil.CONN_LISTEN or (socket.type.name == "SOCK_DGRAM" and not socket.raddr):
                    yield each.name(), socket.laddr.ip
        except psutil.Error:  # the process has ended
            continue


def is_loopback(address):
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def wait_for(condition, process, said, seconds=900):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_it_opens_nothing_to_others_and_leaves_nothing(sweep, short, tmp_path):
    process, sockets, opened = sweep(epochs=1), set(), set()
    while process.poll() is None:
        sockets |= set(listening(process.pid))
        opened |= {(path.name[:8], mode(path)) for path in short.iterdir()}
        time.sleep(0.3)
    assert process.returncode == 0, (tmp_path / "said.txt").read_text()
    assert {"gcs_server", "raylet"} <= {name for name, _ in sockets}
    assert {socket for socket in sockets if not is_loopback(socket[1])} == set()
    assert opened >= {("lit_mem_", 0o700)}
    assert {found for found in opened if found[1] & 0o077} == set()
    assert list(short.iterdir()) == []
    assert not {".ray", "ray_results"} & {path.name for path in (tmp_path / "home").iterdir()}
    paths = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert {mode(path) for path in paths if path.is_dir()} == {0o700}
    assert {mode(path) for path in paths if path.is_file()} == {0o600}
    assert {path.name for path in paths} >= {"results.parquet", "sweep.json", "log.txt", "attempt_0", "last.ckpt"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.exhaustive)]
)
def test_it_leaves_nothing_after_a_signal_either(number, code, sweep, short, tmp_path):
    process, said = sweep(epochs=500), tmp_path / "said.txt"
    wait_for(lambda: list(tmp_path.glob("out/trials/*/attempt_0/checkpoints/last.ckpt")), process, said)
    assert len(list(short.glob("lit_mem_*/ray/session_latest/sockets/plasma_store"))) == 1
    children = family(process.pid)
    assert len(children) > 3
    process.send_signal(number)
    assert process.wait(900) == code, said.read_text()
    assert list(short.iterdir()) == []
    _, left = psutil.wait_procs(children, timeout=300)
    assert left == []
    assert "Traceback" not in said.read_text()
    name = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}[number]
    assert f"Stopped by {name}; run the same command to resume." in said.read_text()


STARTED = """
import os, subprocess, sys
from lit_mem.sweep import ray_session
from lit_mem.sweep.extra import import_ray
import_ray(None)
import ray
call = "import sys; from ray._raylet import GcsClient; print(len(GcsClient(sys.argv[1]).get_all_node_info(timeout=5)))"
with ray_session.private_session():
    address = ray.get_runtime_context().gcs_address
    for token in ("", "0" * 64, os.environ["RAY_AUTH_TOKEN"]):
        env = os.environ | {"RAY_AUTH_MODE": "token" if token else "disabled", "RAY_AUTH_TOKEN": token}
        done = subprocess.run([sys.executable, "-c", call, address], env=env, capture_output=True, text=True)
        print(done.returncode, done.stdout.strip() or done.stderr.count("InvalidAuthToken") > 0)
"""


@pytest.mark.slow
@pytest.mark.exhaustive
def test_another_user_of_the_machine_cannot_connect(short, tmp_path):
    """Even if another user's Ray is named in the environment: it is not joined."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "TMPDIR": str(short), "RAY_ADDRESS": "192.0.2.1:6379"}
    done = subprocess.run([sys.executable, "-c", STARTED], env=env, capture_output=True, text=True, timeout=900)
    assert done.stdout.splitlines() == ["1 True", "1 True", "0 1"], done.stderr
    assert list(short.iterdir()) == []
    assert not (tmp_path / ".ray").exists()


class FakeRay(ModuleType):
    """Replaces Ray: records its options; its own SIGTERM handler has Ray's exit code."""

    __version__ = "2.0"

    def __init__(self, address):
        super().__init__("ray")
        self.calls = []
        self.util = SimpleNamespace(get_node_ip_address=lambda: address)

    def init(self, **options):
        self.calls.append(options)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))

    def shutdown(self):
        self.calls.append("shutdown")


def test_a_ray_that_listens_to_others_is_not_used(short, monkeypatch):
    fake = FakeRay("192.0.2.2")
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    found = r"ray 2.0 listens on 192.0.2.2; expected the loopback interface"
    with pytest.raises(ConfigError, match=found), ray_session.private_session():
        pass
    assert fake.calls[1:] == ["shutdown"]
    assert list(short.iterdir()) == []


def test_a_cluster_is_joined_and_what_ray_keeps_of_the_sweep_is_removed(tmp_path, monkeypatch):
    fake = FakeRay("192.0.2.2")
    monkeypatch.setitem(sys.modules, "ray", fake)
    with ray_session.cluster("192.0.2.1:6379", tmp_path / "ray") as folder:
        assert mode(folder) == 0o700
        (folder / "state").write_text("")
    assert fake.calls[0]["address"] == "192.0.2.1:6379"
    assert "_temp_dir" not in fake.calls[0]
    assert not (tmp_path / "ray").exists()


def test_sigterm_has_its_exit_code_whatever_ray_makes_of_it(tmp_path, monkeypatch):
    fake = FakeRay("127.0.0.1")
    monkeypatch.setitem(sys.modules, "ray", fake)
    before = signal.getsignal(signal.SIGTERM)

    def init(**options):
        fake.calls.append(options)
        sys.exit(signal.SIGTERM)  # by Ray's own handler, during its start

    def body():
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            sys.exit(1)  # like Ray's compiled code

    with pytest.raises(SystemExit) as ended, ended_by_sigterm(), ray_session.private_session():
        body()
    assert ended.value.code == 143
    fake.init = init
    with pytest.raises(SystemExit) as ended, ended_by_sigterm(), ray_session.private_session():
        pass
    assert ended.value.code == 143
    fake.init = lambda **options: None
    with pytest.raises(SystemExit) as ended, ended_by_sigterm(), ray_session.private_session():
        sys.exit(3)
    assert ended.value.code == 3
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_names_of_sockets_fit_whatever_the_folder_for_temporary_files(short, monkeypatch):
    for folder, expected in ((short, str(short)), (short / ("long" * 20), "/tmp")):
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        found = ray_session._short_folder()
        assert found == expected
        socket = f"{found}/lit_mem_12345678/ray/session_2026-11-28_19-32-16_751605_4194304/sockets/plasma_store"
        assert len(socket) <= 107
