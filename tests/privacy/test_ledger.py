"""The ledger: nothing that was written is forgotten, whatever ended the run."""

import json
import os

import pytest

from lit_mem.errors import CheckpointError
from lit_mem.privacy import ledger as module
from lit_mem.privacy.accountant import Steps
from lit_mem.privacy.ledger import Ledger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "privacy.jsonl"


def write(path, steps, noise=1.0, rate=0.1, texts=100):
    made = Ledger(path)
    made.start(texts, noise, rate)
    for _ in range(steps):
        made.charge()
    return made


def test_steps_are_read_again(path):
    assert Ledger(path).steps == 0
    assert not path.exists()
    first = write(path, 3)
    assert first.history == (Steps(1.0, 0.1, 3),)
    second = write(path, 2, noise=2.0)
    assert second.id == first.id != ""
    again = Ledger(path)
    assert again.history == (Steps(1.0, 0.1, 3), Steps(2.0, 0.1, 2)) == second.history
    assert (again.steps, again.texts, again.id) == (5, 100, first.id)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row.get("step") for row in rows] == [None, 1, 2, 3, None, 4, 5]


def test_a_step_is_on_the_disk_before_it_is_taken(path, monkeypatch):
    made = Ledger(path)
    made.start(100, 1.0, 0.1)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(path.read_text().splitlines()[-1]))
    made.charge()
    assert synced == ['{"step": 1}']
    assert Ledger(path).steps == 1


@pytest.mark.parametrize("kept", [1, 5, 11])
def test_a_line_that_was_cut_short_is_a_step(path, kept):
    write(path, 2)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    assert len(last) == 12
    path.write_bytes(content[: -len(last)] + last[:kept])
    assert Ledger(path).steps == 2
    after = write(path, 1, noise=2.0)  # and what is written next is a line of its own
    assert after.steps == 3
    assert Ledger(path).history == (Steps(1.0, 0.1, 2), Steps(2.0, 0.1, 1))


def test_a_first_start_that_was_cut_short_is_nothing(path):
    write(path, 0)
    path.write_bytes(path.read_bytes()[:20])
    assert Ledger(path).steps == 0
    write(path, 1)
    assert Ledger(path).steps == 1


def test_a_later_start_that_was_cut_short_is_a_step_to_be_on_the_safe_side(path):
    write(path, 2)
    with path.open("a") as file:
        file.write('{"start": "abc", "te')
    assert Ledger(path).steps == 3


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("hello\nworld\n", "line 2: found no start of a run"),
        ("hello\n", "line 1: found no start of a run"),
        ("\n", "line 1: found no start of a run"),
        ('{"step": 1}\n', "line 1: found no start of a run"),
        ('{"start": "a"}\n', "line 1: found a start without its numbers"),
        (
            '{"start": "a", "texts": 9, "noise_multiplier": 1, "sample_rate": 0.1}\n{"step": 2}\n',
            "found step 2, expected 1",
        ),
        ('{"start": "a", "texts": 9, "noise_multiplier": "x", "sample_rate": 0.1}\n', "without its numbers"),
    ],
)
def test_what_is_no_ledger_is_refused(path, content, found):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(CheckpointError, match=found):
        Ledger(path)
    assert path.read_text() == content


def test_lines_that_were_taken_out_are_noticed(path):
    write(path, 4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(CheckpointError, match=r"line 3: found step 3, expected 2: lines are missing"):
        Ledger(path)


def test_two_runs_do_not_write_to_one_ledger(path):
    made = Ledger(path)
    made.start(100, 1.0, 0.1)
    write(path, 1)
    with pytest.raises(CheckpointError, match="another run is writing to the privacy ledger"):
        made.charge()
    assert Ledger(path).steps == 1
    late = Ledger(path)
    write(path, 1)
    with pytest.raises(CheckpointError, match="another run is writing"):
        late.start(100, 1.0, 0.1)


def test_a_full_disk_stops_the_run_before_the_step(path, monkeypatch):
    made = Ledger(path)
    made.start(100, 1.0, 0.1)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        made.charge()
    assert error.value.filename == str(path)
    assert made.steps == 0
