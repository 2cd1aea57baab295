"""The table of examples: one row per id, for any batches, order, and number of processes."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.audit.table import ExampleTable


def rows(ids):
    """Input of the table for these examples; every value follows from the id."""
    ids = torch.tensor(ids, dtype=torch.int64)
    return ids, ids % 3 == 0, {"logprob": -ids.double() / 7, "n_tokens": ids * 2}


def table_of(batches):
    table = ExampleTable(["logprob", "n_tokens"])
    for batch in batches:
        table.update(*rows(batch))
    return table.compute()


def assert_holds(table, ids):
    ids, member, values = rows(sorted(set(ids)))
    assert torch.equal(table.example_id, ids)
    assert torch.equal(table.member, member)
    assert table.member.dtype == torch.bool
    assert set(table.columns) == set(values)
    for name, value in values.items():
        assert torch.equal(table[name], value.double())
        assert table[name].dtype == torch.float64
    assert len(table) == len(ids)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=6), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_every_id_has_one_row_in_whatever_order_and_batches(batches, random):
    flat = [i for batch in batches for i in batch]
    assert_holds(table_of(batches), flat)
    random.shuffle(flat)
    assert_holds(table_of([[i] for i in flat] or [[]]), flat)


def test_members_and_nonmembers_share_the_rows():
    table = table_of([[4, 3], [9, 3, 1]])
    assert table.members().example_id.tolist() == [3, 9]
    assert table.nonmembers().example_id.tolist() == [1, 4]
    assert table.nonmembers()["n_tokens"].tolist() == [2, 8]
    assert table.where(table["n_tokens"] > 4).example_id.tolist() == [3, 4, 9]


def test_an_empty_table_is_an_answer_and_no_cause_for_a_warning():
    table = ExampleTable(["logprob", "n_tokens"])
    assert_holds(table.compute(), [])
    table.update(*rows([]))
    assert_holds(table.compute(), [])
    assert len(table.compute().members()) == 0


def test_a_table_without_columns_keeps_ids():
    table = ExampleTable([])
    table.update(torch.tensor([5, 2, 5]), torch.tensor([True, False, True]), {})
    assert table.compute().example_id.tolist() == [2, 5]


def test_reset_clears_the_state_and_compute_does_not():
    table = ExampleTable(["logprob", "n_tokens"])
    table.update(*rows([4, 2]))
    assert_holds(table.compute(), [2, 4])
    table.update(*rows([1]))
    assert_holds(table.compute(), [1, 2, 4])
    table.reset()
    table.update(*rows([7]))
    assert_holds(table.compute(), [7])


def test_large_ids_and_wide_numbers_are_kept_to_the_last_bit():
    ids = torch.tensor([2**62 + 1, 2**62])
    table = ExampleTable(["x"])
    table.update(ids, torch.tensor([True, False]), {"x": torch.tensor([1e16 + 2, 1 / 3], dtype=torch.float64)})
    result = table.compute()
    assert result.example_id.tolist() == [2**62, 2**62 + 1]
    assert result["x"].tolist() == [1 / 3, 1e16 + 2]


# Input of each of two ranks; a rank may have none, and the sampler's padding repeats ids across ranks.
SHARES = [
    ([[11, 3], [8, 5, 0]], [[2]]),
    ([[4, 1, 9]], []),
    ([], [[6], [2, 7]]),
    ([[1, 2], [3]], [[3, 1], [5]]),
    ([], []),
]

SCRIPT = """
import datetime, sys, warnings
import torch
import torch.distributed as dist
from lit_mem.audit.table import ExampleTable

warnings.simplefilter("error", UserWarning)
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=900))
table = ExampleTable(["logprob", "n_tokens"])
results = []

def keep():
    result = table.compute()
    results.append((result.example_id, result.member, result.columns))

for share in torch.load(f"{folder}/batches.pt")[rank]:
    for batch in share:
        table.update(*batch)
    keep()
    table.update(torch.tensor([100 + rank]), torch.tensor([False]),
                 {"logprob": torch.tensor([-1.0]), "n_tokens": torch.tensor([1])})
    keep()  # the rows of before are still this rank's own
    table.reset()
torch.save(results, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.ddp
def test_two_processes_see_the_table_of_one(tmp_path):
    batches = [[[rows(batch) for batch in share[rank]] for share in SHARES] for rank in (0, 1)]
    torch.save(batches, tmp_path / "batches.pt")
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(rank)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert len(results) == 2 * len(SHARES)
        for share, first, second in zip(SHARES, results[::2], results[1::2], strict=True):
            ids = sorted({i for part in share for batch in part for i in batch})
            expected_ids, member, values = rows(ids)
            for result, extra in ((first, 0), (second, 2)):
                n = len(result[0]) - extra
                assert result[0].tolist() == ids + [100, 101][:extra]
                assert torch.equal(result[1][:n], member)
                for name in values:
                    assert torch.equal(result[2][name][:n], values[name].double())
                assert len(expected_ids) == n
