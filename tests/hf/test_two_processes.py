"""The trainer on two gloo processes, as started by torchrun and accelerate: metrics equal those of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lit_mem.files import record

SCRIPT = Path(__file__).with_name("two_processes.py")
pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def run(folder, ranks):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(ranks):
        env = dict(os.environ)
        if ranks > 1:
            env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        command = [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)]
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        outputs = [one.communicate(timeout=400)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0] * ranks, "\n".join(outputs)[-4000:]
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(ranks)], outputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    return run(folder, 2)


def test_both_ranks_know_the_same(two):
    assert two[0][0] == two[0][1]


def test_numbers_are_those_of_one_process(two, tmp_path):
    (one,), _ = run(tmp_path, 1)
    metrics = two[0][0]["metrics"]
    assert set(metrics) == set(one["metrics"])
    assert len(metrics) > 60
    assert metrics["mia/reference_auroc"] != 0.5  # the adapter is a trained one
    assert metrics == pytest.approx(one["metrics"], abs=1e-6)
    assert {"canary/auroc", "audit/epsilon_lower_bound"} < set(two[0][0]["canaries"])
    assert two[0][0]["canaries"] == pytest.approx(one["canaries"], abs=1e-6)


def test_training_is_the_same_with_and_without_it(two):
    plain, measured = two[0][0]["weights"]
    assert plain == measured


def test_it_stops_on_both_at_once_also_after_a_resume(two):
    assert (two[0][0]["stopped"], two[0][0]["stopped_again"]) == (8, 12)


def test_a_copy_is_the_reference_of_a_whole_model(two):
    assert two[0][0]["whole"] > 0.5


def test_rank_zero_alone_writes_the_record_and_prints_the_table(two, folder):
    lines, notes = record.read(folder / "watched" / "memorization" / record.FILE)
    assert [line.step for line in lines] == [0, 4, 8, 12]
    assert not notes
    assert "AUROC reference" in two[1][0]
    assert "AUROC reference" not in two[1][1]
