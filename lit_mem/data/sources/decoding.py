"""The text of a file: unpacked, and decoded by the encoding that was named."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Final

from lit_mem.data.sources.reading import Reading
from lit_mem.errors import DataError

PACKED: Final = (".gz", ".zst")
"""What may follow the suffix of a file of text."""

_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnreadableError(Exception):
    """A file has no text that can be read.

    Args:
        problem: what was found, and what was expected.
        line: where; None: the whole file is concerned.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


class NoRowsError(DataError):
    """A file holds nothing."""


def decoded(name: str, file: Path, reading: Reading) -> str:
    """The text of a file, which holds at least one character that is no white space.

    Args:
        name: what the file is called in messages.
        file: where it lies.
        reading: its encoding.

    Raises:
        DataError: it cannot be read, unpacked or decoded, or holds no text.
    """
    try:
        text = content(file, reading)
    except UnreadableError as error:
        at = "" if error.line is None else f", line {error.line}"
        raise DataError(f"{name}{at}: {error.problem}") from error
    if not text.strip():
        raise NoRowsError(f"{name}: is empty; expected at least one row")
    return text


def content(file: Path, reading: Reading) -> str:
    """All of a file as text, line breaks as they are, without a byte order mark.

    Raises:
        UnreadableError: it cannot be read, unpacked or decoded.
    """
    raw = _unpacked(file)
    try:
        return raw.decode(reading.encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        is_utf8 = reading.encoding == "utf-8"
        seems = ", which starts as UTF-16 does" if is_utf8 and raw[:2] in _MARKS else ""
        expected = (
            f"UTF-8 text ({reading.option('encoding')} names another encoding, such as cp1252 or utf-16)"
            if is_utf8
            else f"{reading.encoding} text, as {reading.option('encoding')} says"
        )
        raise UnreadableError(
            f"found byte 0x{raw[error.start]:02x} at offset {error.start}{seems}; expected {expected}",
            raw.count(b"\n", 0, error.start) + 1,
        ) from error


def _unpacked(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from error
    suffix = file.suffix.lower()
    if suffix == ".gz":
        try:
            return gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise UnreadableError(f"is not a gzip file that can be read ({type(error).__name__})") from error
    return _zstd(raw) if suffix == ".zst" else raw


def _zstd(raw: bytes) -> bytes:
    """By pyarrow, which `datasets` brings: Python has no zstd before 3.14."""
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise UnreadableError("is a .zst file, which this build of pyarrow does not read; expected it unpacked")
    try:
        with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
            return bytes(stream.read())
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(f"is not a zstd file that can be read ({type(error).__name__})") from error
