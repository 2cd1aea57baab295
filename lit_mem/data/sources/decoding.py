"""The text of a file: decompressed, and decoded with the given encoding."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import Final

from lit_mem.data.sources.reading import Reading
from lit_mem.errors import DataError

PACKED: Final = (".gz", ".zst")
"""Suffixes of compression, after the suffix of a text file."""

_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnreadableError(Exception):
    """A file has no readable text.

    Args:
        problem: what was found, and what was expected.
        line: line number; None: the whole file.
    """

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line = problem, line


class NoRowsError(DataError):
    """A file has no rows."""


def decoded(name: str, file: Path, reading: Reading) -> str:
    """The text of a file, with at least one character that is not white space.

    Args:
        name: name of the file in messages.
        file: path of the file.
        reading: its encoding.

    Raises:
        DataError: it cannot be read, decompressed or decoded, or has no text.
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
    """The content of a file as text, with original line breaks, without a byte order mark.

    Raises:
        UnreadableError: it cannot be read, decompressed or decoded.
    """
    raw = _unpacked(file)
    try:
        return raw.decode(reading.encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        is_utf8 = reading.encoding == "utf-8"
        seems = ", which starts as UTF-16 does" if is_utf8 and raw[:2] in _MARKS else ""
        expected = (
            f"UTF-8 text (set {reading.option('encoding')} for another encoding, such as cp1252 or utf-16)"
            if is_utf8
            else f"{reading.encoding} text, as set by {reading.option('encoding')}"
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
            raise UnreadableError(f"is not a readable gzip file ({type(error).__name__})") from error
    return _zstd(raw) if suffix == ".zst" else raw


def _zstd(raw: bytes) -> bytes:
    """Uses pyarrow, a dependency of `datasets`: Python has no zstd before 3.14."""
    import pyarrow as pa

    if not pa.Codec.is_available("zstd"):
        raise UnreadableError(
            "is a .zst file, which this build of pyarrow does not support; expected an uncompressed file"
        )
    try:
        with pa.CompressedInputStream(pa.BufferReader(raw), "zstd") as stream:
            return bytes(stream.read())
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(f"is not a readable zstd file ({type(error).__name__})") from error
