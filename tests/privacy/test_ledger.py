"""The ledger: nothing written is lost, however the run ended."""

import json
import os

import pytest

from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.privacy import ledger as module
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.ledger_lines import Start


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
    (last,) = map(json.loads, synced)
    assert last["step"] == 1
    assert Ledger(path).steps == 1


@pytest.mark.parametrize("kept", [1, 5, 40, -2, -1])
def test_a_line_that_was_cut_short_is_a_step(path, kept):
    write(path, 2)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    assert len(last) > 80
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
        ('{"start": "a", "texts": 9, "noise_multiplier": NaN, "sample_rate": 0.1}\n', "without its numbers"),
        ('{"start": "a", "texts": 9, "noise_multiplier": 1, "sample_rate": -0.1}\n', "without its numbers"),
        ('{"start": "a", "texts": Infinity, "noise_multiplier": 1, "sample_rate": 0.1}\n', "without its numbers"),
        ("[" * 100_000 + "\n", "line 1: found no start of a run"),
        (
            '{"start": "a", "texts": 9, "noise_multiplier": 1, "sample_rate": 0.1, "taken": 4}\n',
            "line 1: found a line without its hash",
        ),
    ],
)
def test_what_is_no_ledger_is_rejected(path, content, found):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(CheckpointError, match=found):
        Ledger(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("texts", "steps"), [(9, Steps(1.0, 0.1, 10**400)), (10**400, Steps(1.0, 0.1, 1)), (9, Steps(1e-160, 0.1, 1)),
                         (9, Steps(1e300, 0.1, 1)), (9, Steps(1.0, 1e-300, 1))],
)  # fmt: skip
def test_numbers_with_which_no_accountant_ends_are_rejected(path, texts, steps):
    Ledger(path).copy([Start("a", texts, steps)])
    with pytest.raises(CheckpointError, match="line 1: found a start without its numbers"):
        Ledger(path)


def test_lines_that_were_taken_out_are_noticed(path):
    write(path, 4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(CheckpointError, match=r"line 3: found another hash"):
        Ledger(path)
    path.write_text("".join(unchained(line) for line in lines[:2] + lines[3:]))
    with pytest.raises(CheckpointError, match=r"line 3: found step 3, expected 2: lines are missing"):
        Ledger(path)


def unchained(line):
    """A line as an earlier version wrote it."""
    row = json.loads(line)
    del row["chain"]
    return json.dumps(row) + "\n"


def edited(lines, n, **changes):
    return [*lines[:n], json.dumps(json.loads(lines[n]) | changes) + "\n", *lines[n + 1 :]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: edited(lines, 0, noise_multiplier=100.0), 1),
        (lambda lines: edited(lines, 0, texts=10**6), 1),
        (lambda lines: edited(lines, 4, noise_multiplier=100.0), 5),
        (lambda lines: edited(lines, 4, id="other"), 5),
        (lambda lines: [lines[0], *lines[4:]], 2),
        (lambda lines: lines[1:], 1),
        (lambda lines: [*lines[:4], *lines[5:]], 5),
        (lambda lines: [*lines[:5], *lines[1:4]], 6),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
        (lambda lines: [*lines[:4], lines[4][:40] + "\n", *lines[5:]], 6),  # a start, made to look truncated
        (lambda lines: [*lines[:2], unchained(lines[2]), *lines[3:]], 3),
        (lambda lines: [unchained(lines[0]), *lines[1:]], 2),
    ],
)
def test_a_line_that_was_changed_dropped_or_moved_is_named(path, change, line):
    write(path, 3)
    write(path, 2, noise=2.0)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))
    with pytest.raises(CheckpointError, match=rf"privacy\.jsonl, line {line}: found"):
        Ledger(path)


def test_an_edited_noise_multiplier_is_found(path):
    """It made epsilon 0.0005 of 1.087, and was accepted."""
    spent = epsilon(write(path, 10, noise=1.5).history, 1e-3)
    path.write_text(path.read_text().replace('"noise_multiplier": 1.5', '"noise_multiplier": 150'))
    with pytest.raises(CheckpointError, match=r"line 1: found another hash"):
        Ledger(path)
    write(path.with_name("new"), 10, noise=150.0)
    assert epsilon(Ledger(path.with_name("new")).history, 1e-3) < spent / 100


def test_a_ledger_of_an_earlier_version_goes_on_and_is_chained_from_there(path):
    write(path, 3)
    path.write_text("".join(map(unchained, path.read_text().splitlines(keepends=True))))
    assert (Ledger(path).unchained, Ledger(path).steps) == (4, 3)
    write(path, 1, noise=2.0)
    again = Ledger(path)
    assert (again.unchained, again.history) == (4, (Steps(1.0, 0.1, 3), Steps(2.0, 0.1, 1)))
    path.write_text(path.read_text().replace('"noise_multiplier": 1.0', '"noise_multiplier": 100.0'))
    with pytest.raises(CheckpointError, match="line 5: found another hash"):  # the first that has one
        Ledger(path)


def test_lines_end_as_another_system_ends_them(path):
    write(path, 3)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert Ledger(path).steps == 3


def test_copied_steps_count_also_with_other_texts(path):
    first = write(path, 3, texts=50)
    made = Ledger(path.with_name("second"))
    made.copy(first.starts)
    made.start(100, 2.0, 0.2)
    made.charge()
    again = Ledger(path.with_name("second"))
    assert again.history == (Steps(1.0, 0.1, 3), Steps(2.0, 0.2, 1)) == made.history
    assert again.starts == made.starts
    assert [start.copied for start in again.starts] == [True, False]
    assert again.starts[0].id == first.id
    again.check(100)
    with pytest.raises(ConfigError, match="is for 100 training texts, but there are 50"):
        again.check(50)


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
