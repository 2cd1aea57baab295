"""Files that others made, as plain values: bounded in size, depth and time, and one line where they are broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import ConfigError, DataError, LitMemError, ModelError

LARGEST: Final = 64 * 2**20
"""Bytes of a file of JSON; reading takes about ten times as much memory."""
LARGEST_CONFIG: Final = 4 * 2**20
"""Bytes of the configuration of a model or an adapter."""
LARGEST_YAML: Final = 2**20
"""Bytes of a file of YAML, which Python reads at a tenth of a second for each 10,000."""
DEEPEST: Final = 100
"""Levels of lists and objects; libraries that take such values apart call themselves for each."""
_MOST_NODES: Final = 200_000
"""Values of a YAML file, counted as often as aliases repeat them."""


def read_json(path: Path, kind: type[LitMemError] = DataError, largest: int = LARGEST) -> Any:
    """What a file of JSON holds.

    Args:
        path: of the file.
        kind: of the error.
        largest: bytes.

    Raises:
        LitMemError: of this kind, naming the file: it is no JSON, or beyond `largest` or `DEEPEST`.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path, kind, largest), str(path), kind)


def parse_json(text: str, where: str, kind: type[LitMemError] = DataError) -> Any:
    """The same for a text; `where` names it in the message.

    >>> parse_json('{"a": [1]}', "file")
    {'a': [1]}
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels") from None
    except ValueError as error:
        raise kind(f"{where}: no JSON that can be read ({error})") from None
    level: list[Any] = [found]
    for _ in range(DEEPEST + 1):
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return found
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels")


def read_yaml(path: Path, kind: type[LitMemError] = DataError) -> tuple[str, Any]:
    """The text of a YAML file, and what it holds.

    Raises:
        LitMemError: of this kind, naming the file: it is no YAML, or beyond the limits of `check_yaml`.
        OSError: it cannot be read.
    """
    import yaml

    text = read_text(path, kind, LARGEST_YAML, errors="replace")
    check_yaml(text, str(path), kind)
    try:
        return text, yaml.safe_load(text)
    except Exception as error:  # a tag on a value that does not have its form raises many kinds
        raise kind(f"{path}: no YAML that can be read ({_line(error)})") from None


def check_yaml(text: str, where: str, kind: type[LitMemError] = ConfigError) -> None:
    """Reject YAML that is small as a text, and large or deep as a value.

    Raises:
        LitMemError: of this kind: broken, nested too deeply, an anchor within itself, or aliases that repeat too much.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_ones: list[tuple[str | None, int]] = []  # anchor, and values before it
    count = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise kind(f"{where}: alias {event.anchor[:40]!r} stands within its own anchor, or before it")
                count += sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent):
                count += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                open_ones.append((event.anchor, count))
                count += 1
                if len(open_ones) > DEEPEST:
                    raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_ones.pop()
                if anchor is not None:
                    sizes[anchor] = count - before
            if count > _MOST_NODES:
                raise kind(f"{where}: its aliases stand for over {_MOST_NODES:,} values; expected fewer")
    except (yaml.YAMLError, RecursionError) as error:
        raise kind(f"{where}: no YAML that can be read ({_line(error)})") from None


@contextmanager
def panics_raised(what: str) -> Iterator[None]:
    """Name what a panic of a library in Rust is about, which no `except Exception` catches.

    Args:
        what: the body works with, such as "the tokenizer of model_id './llama'".

    Raises:
        ModelError: the body panicked. What the library quotes of a text is left out.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what} is damaged: native code ended with: {_line(error).partition('`')[0]}") from None


def read_text(path: Path, kind: type[LitMemError], largest: int, errors: str = "strict") -> str:
    """The text of a file in UTF-8.

    Raises:
        LitMemError: of this kind, naming the file: it is over `largest` bytes, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise kind(f"{path}: over {largest:,} bytes; expected fewer")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise kind(f"{path}: found byte 0x{content[error.start]:02x}; expected UTF-8 text") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).replace('in "<unicode string>",', "at")[:200]
