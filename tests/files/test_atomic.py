"""A file is complete under its name at every moment, also with several writers."""

import stat

import pytest

from lit_mem.files.atomic import whole


@pytest.mark.parametrize("shared", [False, True])
def test_a_body_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, shared):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(part):
        part.write_text("half")
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
        assert path.read_text() == "old"
        raise KeyError

    with pytest.raises(KeyError), whole(path, shared) as part:
        write(part)
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("shared", [False, True])
def test_errors_name_the_file(tmp_path, shared):
    path = tmp_path / "absent" / "a.txt"
    with pytest.raises(FileNotFoundError) as caught, whole(path, shared):
        pass
    assert caught.value.filename == str(path)


def test_two_writers_of_a_shared_file_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with whole(path, shared=True) as one, whole(path, shared=True) as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"  # its body ended last
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
