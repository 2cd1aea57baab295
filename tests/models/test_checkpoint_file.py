"""Opening a checkpoint: its content, and a one-line error that begins with its path."""

import io
import pickle
import zipfile

import pytest
import torch

from lit_mem.errors import CheckpointError
from lit_mem.models.checkpoint import read_content
from lit_mem.models.checkpoint_file import open_checkpoint

WEIGHT = torch.arange(1000.0)


class Code:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.fixture
def path(tmp_path):
    torch.save({"weight": WEIGHT}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_saved_is_read(path, mmap):
    assert torch.equal(open_checkpoint(path, mmap=mmap, checksums=True)["weight"], WEIGHT)
    assert torch.equal(open_checkpoint(str(path), mmap=mmap)["weight"], WEIGHT)


def test_an_open_file_is_read_from_its_position(path):
    assert torch.equal(open_checkpoint(io.BytesIO(path.read_bytes()))["weight"], WEIGHT)


def flip(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = next(one for one in archive.infolist() if one.file_size == 4 * len(WEIGHT))
    data[at.header_offset + 2000] ^= 1
    path.write_bytes(data)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")


BROKEN = {
    "absent": (lambda path: path.unlink(), "does not exist"),
    "text": (lambda path: path.write_text("text"), "is not a checkpoint"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-100]), "truncated"),
    "another zip": (other_zip, "is damaged"),
    "code": (lambda path: torch.save({"a": Code()}, path), "contains pickled objects"),
    "a flipped bit": (flip, "is damaged: .*does not match its checksum"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_line_that_begins_with_the_path(path, name, capsys):
    damage, found = BROKEN[name]
    damage(path)
    for read in (open_checkpoint, read_content):
        with pytest.raises(CheckpointError, match=found) as raised:
            read(path, mmap=True, checksums=True)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_something_else_is_named(path):
    with pytest.raises(CheckpointError, match=r"a\.ckpt: this checkpoint was not written by lit_mem"):
        read_content(path)


def test_the_code_of_the_test_can_run(capsys):
    pickle.loads(pickle.dumps(Code()))
    assert capsys.readouterr().out == "code was run\n"
