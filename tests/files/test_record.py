"""The record of a run: what is written is read, and a kill or a full disk leaves complete lines."""

import json
import math
import os
import stat
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import DataError
from lit_mem.files import record
from lit_mem.files.record import FILE, Line, Stop, append, read

SCHEMA = json.loads(Path(record.__file__).with_name("record.schema.json").read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
LINE = Line("fit", 1, 10, 9, True, 60, 40, {"val/loss": 1.5}, {}, [Stop("Stops", ["val/loss > 2"], "any", False)])

counts = st.none() | st.integers(0, 2**53)
texts = st.text(max_size=20)
stops = st.builds(Stop, texts, st.lists(texts, max_size=2), st.sampled_from(["any", "all"]), st.booleans())
lines = st.builds(
    Line,
    stage=st.sampled_from(["fit", "validate", "test"]),
    epoch=st.integers(0, 2**53),
    step=st.integers(0, 2**53),
    logged_step=st.integers(0, 2**53),
    complete=st.booleans(),
    members=counts,
    heldout=counts,
    metrics=st.dictionaries(texts, st.floats(), max_size=5),
    absent=st.dictionaries(texts, texts, max_size=2),
    stop=st.lists(stops, max_size=2),
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("record") / FILE


def written(path, several):
    path.unlink(missing_ok=True)
    for line in several:
        append(path, line)
    return path.read_bytes()


def of(step, stage="fit", **more):
    return replace(LINE, step=step, logged_step=max(0, step - 1), stage=stage, **more)


@settings(deadline=None)
@given(line=lines)
def test_a_line_is_read_as_it_was_written_to_the_last_bit_and_fits_the_schema(path, line):
    content = written(path, [line])
    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    VALID.validate(json.loads(content, parse_constant=pytest.fail))
    ([found], notes) = read(path)
    assert notes == []
    assert repr(found) == repr(line)  # of floats too, NaN and -0.0 among them


@settings(deadline=None)
@given(data=st.data())
def test_truncated_at_any_byte_complete_lines_are_kept_and_the_next_line_replaces_the_suffix(path, data):
    three = [of(0, metrics={"a": math.nan}), of(10), of(20, absent={"é": "ü"})]
    content = written(path, three)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    n = content[:cut].count(b"\n")
    found, notes = read(path)
    assert repr(found) == repr(three[:n])
    torn = not content[:cut].endswith(b"\n") and cut > 0
    assert notes == ([f"{FILE}: line {n + 1} is truncated and was skipped"] if torn else [])
    append(path, of(30))
    found, notes = read(path)
    assert repr(found) == repr([*three[:n], of(30)])
    assert notes == []


@pytest.mark.parametrize("size", [1, 2**16 - 1, 2**16, 2**16 + 1, 200_000])
def test_a_long_torn_line_is_replaced_too(path, size):
    written(path, [LINE])
    with path.open("ab") as file:
        file.write(b"x" * size)
    append(path, of(20))
    assert read(path) == ([LINE, of(20)], [])


def test_where_the_disk_is_full_the_file_is_as_before(path, monkeypatch):
    before = written(path, [LINE])
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as error:
        append(path, of(20))
    assert error.value.filename == str(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("mask", "mode"), [("077", 0o600), ("027", 0o640)])
def test_it_is_for_its_owner_alone_unless_it_is_shared(path, monkeypatch, mask, mode):
    monkeypatch.setenv("LIT_MEM_UMASK", mask)
    written(path, [LINE])
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([0, 10, 20], [0, 10, 20]),
        ([0, 10, 20, 20], [0, 10, 20]),  # stopped in the validation at 20, and resumed in the same folder
        ([0, 10, 20, 30, 20], [0, 10, 20]),
        ([0, 10, 20, 0, 10], [0, 10]),  # begun anew
    ],
)
def test_where_training_went_back_earlier_lines_do_not_count(path, steps, kept):
    numbered = [of(step, members=i) for i, step in enumerate(steps)]
    written(path, numbered)
    found, _ = read(path)
    assert [line.step for line in found] == kept
    assert found[-1] == numbered[-1]


def test_validations_and_tests_after_a_fit_are_kept(path):
    several = [of(10), of(20), of(20, "validate"), of(20, "test"), of(30), of(0, "validate")]
    written(path, several)
    assert read(path) == (several, [])


def test_without_a_file_there_is_nothing(tmp_path):
    assert read(tmp_path / FILE) == ([], [])


def changed(**fields):
    return json.dumps(json.loads(written_line()) | fields)


def written_line():
    return json.dumps(
        {"version": 1, "stage": "fit", "epoch": 1, "step": 10, "logged_step": 9, "complete": True, "members": 60}
        | {"heldout": 40, "metrics": {"val/loss": 1.5}, "absent": {}, "stop": []}
    )


STOP = {"set_by": "S", "thresholds": ["a > 1"], "stop_when": "any", "lower_bound": False}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "version is None"),
        (changed(version=2), "version is 2"),
        (changed(version=True), "version is True"),
        (changed(stage="train"), "stage is 'train'"),
        (changed(epoch=-1), "epoch is -1"),
        (changed(step=1.5), "step is 1.5"),
        (changed(step=True), "step is True"),
        (changed(logged_step=2**60), "logged_step is 1152921504606846976"),
        (changed(complete=1), "complete is 1"),
        (changed(members="60"), "members is '60'"),
        (changed(heldout=[]), "heldout is []"),
        (changed(metrics=[]), "metrics is []"),
        (changed(metrics={"a": None}), "metric 'a' is None"),
        (changed(metrics={"a": "nan"}), "metric 'a' is 'nan'"),
        (changed(metrics={"a": True}), "metric 'a' is True"),
        (changed(metrics={"a": math.nan}), "metric 'a' is nan"),
        (changed(metrics={"a": 10**400}), "metric 'a' is 1000"),
        (changed(absent={"a": 1}), "absent is"),
        (changed(stop={}), "stop is {}"),
        (changed(stop=[STOP | {"more": 1}]), "stop is"),
        (changed(stop=[STOP | {"thresholds": [1]}]), "stop is"),
        (changed(stop=[STOP | {"stop_when": "never"}]), "stop is"),
        (written_line().replace('"absent": {}, ', ""), "absent is None"),
    ],
    ids=range(26),
)
def test_a_line_of_another_form_is_named_with_its_field(path, line, named):
    path.write_text(f"{written_line()}\n{line}\n")
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    path.write_text(f"{written_line()}\n{line}")  # without its newline it is incomplete
    assert len(read(path)[0]) == 1


def test_the_schema_takes_what_is_read_and_nothing_else():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert VALID.is_valid(json.loads(changed(stop=[STOP])))
    for fields in ({"version": 2}, {"epoch": -1}, {"metrics": {"a": None}}, {"more": 1}, {"stop": [STOP | {"a": 1}]}):
        assert not VALID.is_valid(json.loads(changed(**fields)))
