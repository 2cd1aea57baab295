"""Objects by key, and joined tables: the same for any distribution over ranks."""

import os
import subprocess
import sys

import pytest
import torch

from lit_mem.audit.gather import Gathered
from lit_mem.audit.table import ScoreTable, joined


def test_one_process_reads_what_it_set():
    store = Gathered()
    store["a"] = 1
    assert "a" in store
    assert store.compute() == {"a": 1}
    store["b"] = 2
    assert "a" in store
    assert store.compute() == {"a": 1, "b": 2}
    store.reset()
    assert store.compute() == {}
    assert "a" not in store


SCRIPT = """
import datetime, sys
import torch
import torch.distributed as dist
from lit_mem.audit.gather import Gathered

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=900))
store, seen = Gathered(), []
for share in ([["x", 1], ["y", 2]], [[], ["z", 3]], [[], []]):
    if share[rank]:
        store[share[rank][0]] = share[rank][1]
    seen.append(dict(store.compute()))
torch.save(seen, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.ddp
def test_two_processes_read_what_either_set(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(script), str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)], env=environment) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=900) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    expected = [{"x": 1, "y": 2}, {"x": 1, "y": 2, "z": 3}, {"x": 1, "y": 2, "z": 3}]
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt") == expected


def table(ids, **columns):
    ids = torch.tensor(ids)
    return ScoreTable(ids, ids % 2 == 0, {name: torch.tensor(v, dtype=torch.float64) for name, v in columns.items()})


def test_tables_side_by_side():
    both = joined([table([1, 4], a=[0.5, 2.0]), table([2, 4, 9], b=[1.0, 3.0, 5.0])])
    assert both.example_id.tolist() == [1, 2, 4, 9]
    assert both.member.tolist() == [False, True, True, False]
    nan = float("nan")
    torch.testing.assert_close(both["a"], torch.tensor([0.5, nan, 2.0, nan]).double(), equal_nan=True)
    torch.testing.assert_close(both["b"], torch.tensor([nan, 1.0, 3.0, 5.0]).double(), equal_nan=True)


def test_no_tables_and_empty_tables():
    assert len(joined([])) == 0
    assert joined([table([], a=[]), table([3], b=[1.0])])["b"].tolist() == [1.0]


def test_columns_under_other_names():
    renamed = table([1, 2], a=[0.5, 2.0], b=[1.0, 1.0]).renamed({"room/a": "a"})
    assert set(renamed.columns) == {"room/a"}
    assert renamed["room/a"].tolist() == [0.5, 2.0]
