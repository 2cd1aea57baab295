"""Summed ledgers: each step counts once, however many files repeat it."""

import pytest

from lit_mem.privacy.accountant import Steps
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.summed import export, missing, together


@pytest.fixture
def ledger(tmp_path):
    """Makes ledgers: `ledger("a", (1.0, 3), (2.0, 1))`, noise and number of each start."""

    def make(name, *starts, corpus="k:a"):
        made = Ledger(tmp_path / name)
        for noise, number in starts:
            made.start(100, noise, 0.1, corpus)
            for _ in range(number):
                made.charge()
        return made

    return make


def kinds(starts):
    return sorted((start.steps.noise_multiplier, start.steps.number) for start in starts)


def test_runs_of_their_own_add_up(ledger):
    assert kinds(together([ledger("a", (1.0, 3)), ledger("b", (1.0, 4))])) == [(1.0, 3), (1.0, 4)]


def test_an_exported_ledger_adds_nothing_to_its_runs(ledger, tmp_path):
    run = ledger("a", (1.0, 3), (2.0, 1))
    export(run, tmp_path / "exported")
    exported = Ledger(tmp_path / "exported")
    assert exported.history == run.history
    assert {start.corpus for start in exported.starts} == {""}
    run.charge()
    for order in ([run, exported], [exported, run], [exported, run, run]):
        found = together(order)
        assert kinds(found) == [(1.0, 3), (2.0, 2)]
        assert {start.corpus for start in found} == {"k:a"}
    assert missing(exported.starts, run) == []
    assert kinds(missing(run.starts, exported)) == [(2.0, 1)]
    assert kinds(missing(run.starts, None)) == [(1.0, 3), (2.0, 2)]


def test_what_two_runs_have_copied_from_one_counts_once(ledger, tmp_path):
    first = ledger("first", (1.0, 3))
    later = []
    for name, noise in (("a", 2.0), ("b", 3.0)):
        made = Ledger(tmp_path / name)
        made.copy(first.starts)
        made.start(100, noise, 0.1)
        made.charge()
        later.append(Ledger(tmp_path / name))
    assert kinds(together([*later, first])) == [(1.0, 3), (2.0, 1), (3.0, 1)]


def test_steps_copied_in_two_parts_are_all_there(ledger, tmp_path):
    first = ledger("first", (1.0, 3))
    made = Ledger(tmp_path / "made")
    made.copy(first.starts)
    first.charge()
    made.copy(missing(first.starts, made))
    assert made.history == (Steps(1.0, 0.1, 4),)
    assert kinds(together([made, first])) == [(1.0, 4)]
    export(made, tmp_path / "exported")
    assert len(Ledger(tmp_path / "exported").starts) == 1
